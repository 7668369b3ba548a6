"""The ASGI app of contacts: `uvicorn services.contacts.main:app`."""

from fastapi import FastAPI

import services.contacts
from libs.shared.dead_letters_api import dead_letters_router
from libs.shared.http import create_app
from services.contacts import screen_pop
from services.contacts.clients import api as clients
from services.contacts.clients import many_api as many_clients
from services.contacts.deals import api as deals
from services.contacts.deals import closing_api as closing
from services.contacts.interactions import api as interactions
from services.contacts.interactions import planning_api as planning
from services.contacts.interactions import promises_api as promises
from services.contacts.leads import api as leads
from services.contacts.leads import webhooks_api as webhooks
from services.contacts.pages import api as pages
from services.contacts.policies import POLICIES
from services.contacts.settings import ContactsSettings


def build(settings: ContactsSettings) -> FastAPI:
    """The app with the given settings."""
    talks = (interactions, planning, promises)
    parts = (many_clients, clients, screen_pop, *talks, deals, closing, leads, webhooks, pages)
    return create_app(
        settings=settings,
        title="contacts",
        description=services.contacts.__doc__ or "",
        routers=[*(part.routes for part in parts), dead_letters_router()],
        policies=POLICIES,
    )


def __getattr__(name: str) -> FastAPI:
    # Settings are read when a server asks for `app`, never by a mere import.
    if name == "app":
        return build(ContactsSettings())
    raise AttributeError(name)
