"""The ASGI app of routing: `uvicorn services.routing.main:app`."""

from fastapi import FastAPI

import services.routing
from libs.shared.dead_letters_api import dead_letters_router
from libs.shared.http import create_app
from services.routing import lead_commands_api, leads_api
from services.routing.managers import api as managers_api
from services.routing.managers import attendance_api
from services.routing.policy import ClaimPolicy, MutingPolicy, PresencePolicy
from services.routing.reports import api as reports_api
from services.routing.rules import api as rules_api
from services.routing.settings import RoutingSettings


def build(settings: RoutingSettings) -> FastAPI:
    """The app with the given settings."""
    return create_app(
        settings=settings,
        title="routing",
        description=services.routing.__doc__ or "",
        routers=[
            leads_api.routes,
            lead_commands_api.routes,
            managers_api.routes,
            attendance_api.routes,
            rules_api.routes,
            reports_api.routes,
            dead_letters_router(),
        ],
        policies=[ClaimPolicy, PresencePolicy, MutingPolicy],
    )


def __getattr__(name: str) -> FastAPI:
    # Settings are read when a server asks for `app`, never by a mere import.
    if name == "app":
        return build(RoutingSettings())
    raise AttributeError(name)
