"""A routing database with managers on shift, and shortcuts to let leads come and time pass."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest

from libs.shared.database import Database
from libs.shared.events import LeadReceived
from libs.shared.ids import new_id
from libs.shared.inbox import Inbox
from libs.shared.subscriptions import Dispatcher
from services.routing.claim_timeout import reassign_lapsed_leads
from services.routing.main import build
from services.routing.offering import offer_waiting_leads
from services.routing.settings import RoutingSettings
from services.routing.subscriptions import SUBSCRIPTIONS
from tests.apps import App, running
from tests.conftest import FreshDatabase
from tests.shared.streams import record_of

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
WINDOW = timedelta(minutes=15)


def received(
    *, at: datetime = NOON, lead: UUID | None = None, owner: UUID | None = None
) -> LeadReceived:
    return LeadReceived(
        lead_id=lead or new_id(),
        client_id=new_id(),
        source="site-form",
        channel="form",
        is_returning=owner is not None,
        owner_id=owner,
        occurred_at=at,
    )


@dataclass
class Routing:
    """The service's rules on a database of their own."""

    database: Database

    async def manager(self, *, on_shift: bool = True) -> UUID:
        manager_id = new_id()
        await self.database.pool.execute(
            "INSERT INTO managers (manager_id, name, created_at, version)"
            " VALUES ($1, 'Ann', $2, 1)",
            manager_id,
            NOON,
        )
        if on_shift:
            await self.begin_shift(manager_id)
        return manager_id

    async def begin_shift(self, manager_id: UUID) -> None:
        await self.database.pool.execute(
            "INSERT INTO shifts (shift_id, manager_id, starts_at) VALUES ($1, $2, $3)",
            new_id(),
            manager_id,
            NOON - timedelta(hours=1),
        )

    async def hears(self, *events: LeadReceived) -> None:
        inbox = Inbox(self.database, Dispatcher(SUBSCRIPTIONS))
        await inbox.apply([record_of(event) for event in events])

    async def offers(self, now: datetime = NOON) -> None:
        fired = 1
        while fired:
            async with self.database.transaction() as tx:
                fired = await offer_waiting_leads(tx, now)

    async def sweeps(self, now: datetime) -> int:
        swept, fired = 0, 1
        while fired:
            async with self.database.transaction() as tx:
                fired = await reassign_lapsed_leads(tx, now)
            swept += fired
        return swept

    async def lead(self, lead_id: UUID) -> asyncpg.Record:
        row = await self.database.pool.fetchrow("SELECT * FROM leads WHERE lead_id=$1", lead_id)
        assert row is not None
        return row

    async def comes(self, count: int = 1, **options: Any) -> list[UUID]:
        """Leads come in and are offered; their ids."""
        events = [received(**options) for _ in range(count)]
        await self.hears(*events)
        await self.offers()
        return [event.lead_id for event in events]

    async def spread(self) -> Counter[UUID]:
        """How many leads each manager holds."""
        rows = await self.database.pool.fetch(
            "SELECT manager_id FROM leads WHERE manager_id IS NOT NULL"
        )
        return Counter(row["manager_id"] for row in rows)

    async def said(self, lead_id: UUID | None = None) -> list[tuple[str, int]]:
        """Names and epochs of the events in the outbox, in the order of saying."""
        rows = await self.database.pool.fetch(
            "SELECT type, data FROM outbox WHERE $1::text IS NULL OR key = $1 ORDER BY id",
            str(lead_id) if lead_id else None,
        )
        return [
            (
                row["type"].removeprefix("baza.").removesuffix(".v1"),
                orjson.loads(row["data"])["epoch"],
            )
            for row in rows
        ]


async def holders_at_every_moment(routing: Routing) -> Sequence[asyncpg.Record]:
    """Pairs of offers of one lead that overlap in time; must be empty."""
    return await routing.database.pool.fetch(
        "SELECT a.lead_id FROM offers a JOIN offers b USING (lead_id) WHERE a.epoch < b.epoch"
        " AND coalesce(a.ended_at, 'infinity') > b.offered_at"
    )


@pytest.fixture
async def routing_url(fresh_database: FreshDatabase) -> str:
    return await fresh_database("routing")


@pytest.fixture
async def routing(routing_url: str) -> AsyncIterator[Routing]:
    async with Database.open(routing_url, name="test", pool_size=6) as database:
        yield Routing(database)


@pytest.fixture
async def api(routing_url: str) -> AsyncIterator[App]:
    async with running(build, RoutingSettings, routing_url) as app:
        yield app
