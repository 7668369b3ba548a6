"""The contacts API on a database of its own, its inbox, and what it has said so far."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from libs.shared.database import Database
from libs.shared.events import Event
from libs.shared.inbox import Inbox
from libs.shared.subscriptions import Dispatcher
from services.contacts.main import build
from services.contacts.settings import ContactsSettings
from services.contacts.subscriptions import SUBSCRIPTIONS
from tests.conftest import FreshDatabase
from tests.shared.issuer import AUDIENCE, Issuer
from tests.shared.streams import record_of

FORM = "site-form"
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@dataclass
class Contacts:
    """The running service; `http` carries a supervisor's token."""

    app: FastAPI
    http: httpx.AsyncClient
    issuer: Issuer
    database: Database
    inbox: Inbox

    def bearer(self, *roles: str, **changes: Any) -> dict[str, str]:
        return self.issuer.bearer(*roles, **changes)

    def manager(self, manager_id: UUID) -> dict[str, str]:
        return self.bearer("manager", sub=f"manager-{manager_id}", manager_id=manager_id)

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return await self.http.post(path, json=body, headers=headers)

    async def made(self, path: str, body: Any, **headers: str) -> Any:
        """What a command that must succeed is answered."""
        answer = await self.post(path, body, **headers)
        assert answer.status_code in (200, 201, 202), answer.text
        return answer.json()

    async def add_client(self, name: str = "Анна", **card: Any) -> Any:
        return await self.made("/v1/clients", {"name": name, **card})

    async def hears(self, *events: Event) -> None:
        await self.inbox.apply([record_of(event) for event in events])

    async def said(self, *names: str) -> list[dict[str, Any]]:
        """The data of the events in the outbox, in order; of all types if none is named."""
        rows = await self.database.pool.fetch("SELECT type, data FROM outbox ORDER BY id")
        wanted = {f"baza.{name}.v1" for name in names}
        return [
            {"event": row["type"].split(".", 1)[1][:-3], **orjson.loads(row["data"])}
            for row in rows
            if not wanted or row["type"] in wanted
        ]

    async def count(self, table: str) -> int:
        found: int = await self.database.pool.fetchval(f"SELECT count(*) FROM {table}")
        return found


@pytest.fixture(scope="session")
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer().serving() as made:
        yield made


@pytest.fixture
async def contacts(fresh_database: FreshDatabase, issuer: Issuer) -> AsyncIterator[Contacts]:
    settings = ContactsSettings(
        database_url=await fresh_database("contacts"),
        database_pool=4,
        jwks_url=issuer.jwks_url,
        jwt_issuer=issuer.name,
        jwt_audience=AUDIENCE,
        webhook_secrets={FORM: [SecretStr(SECRET)]},
    )
    app = build(settings)
    async with app.router.lifespan_context(app):
        database: Database = app.state.database
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://contacts",
            headers=issuer.bearer("supervisor"),
        ) as http:
            inbox = Inbox(database, Dispatcher(SUBSCRIPTIONS))
            yield Contacts(app, http, issuer, database, inbox)
