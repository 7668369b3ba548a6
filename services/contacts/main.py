"""The ASGI app of contacts: `uvicorn services.contacts.main:app`."""

from fastapi import FastAPI

import services.contacts
import services.contacts.clients.api
import services.contacts.deals.api
from libs.shared.dead_letters_api import dead_letters_router
from libs.shared.http import create_app
from services.contacts import clients, deals
from services.contacts.policies import POLICIES
from services.contacts.settings import ContactsSettings


def build(settings: ContactsSettings) -> FastAPI:
    """The app with the given settings."""
    return create_app(
        settings=settings,
        title="contacts",
        description=services.contacts.__doc__ or "",
        routers=[clients.api.routes, deals.api.routes, dead_letters_router()],
        policies=POLICIES,
    )


def __getattr__(name: str) -> FastAPI:
    # Settings are read when a server asks for `app`, never by a mere import.
    if name == "app":
        return build(ContactsSettings())
    raise AttributeError(name)
