"""The ASGI app of notifications: `uvicorn services.notifications.main:app`."""

from fastapi import FastAPI

import services.notifications
from libs.shared.dead_letters_api import dead_letters_router
from libs.shared.http import create_app
from services.notifications import api, opened_api, templates_api
from services.notifications.opened import OpeningPolicy
from services.notifications.reminder_policy import ReminderPolicy, SendingPolicy
from services.notifications.settings import NotificationsSettings
from services.notifications.staff import api as staff_api
from services.notifications.staff.policy import StaffAlertPolicy


def build(settings: NotificationsSettings) -> FastAPI:
    """The app with the given settings."""
    return create_app(
        settings=settings,
        title="notifications",
        description=services.notifications.__doc__ or "",
        routers=[
            api.routes,
            templates_api.routes,
            staff_api.routes,
            opened_api.routes,
            dead_letters_router(),
        ],
        policies=[ReminderPolicy, SendingPolicy, OpeningPolicy, StaffAlertPolicy],
    )


def __getattr__(name: str) -> FastAPI:
    # Settings are read when a server asks for `app`, never by a mere import.
    if name == "app":
        return build(NotificationsSettings())
    raise AttributeError(name)
