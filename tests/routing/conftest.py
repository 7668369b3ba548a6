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

from libs.shared import policies
from libs.shared.database import Database
from libs.shared.events import Event, LeadReceived
from libs.shared.ids import new_id
from libs.shared.inbox import Inbox
from libs.shared.policies import Policy
from libs.shared.subscriptions import Dispatcher
from libs.shared.timers import Fire, fire_once
from services.routing.choosing.rule_set import RuleSet
from services.routing.claim_timeout import reassign_lapsed_leads
from services.routing.main import build
from services.routing.managers.attendance import attend
from services.routing.offering import OFFERING
from services.routing.rules.versions import activate, draft
from services.routing.settings import RoutingSettings
from services.routing.subscriptions import SUBSCRIPTIONS
from tests.apps import App, running
from tests.conftest import FreshDatabase
from tests.shared.streams import record_of

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
WINDOW = timedelta(minutes=15)


def received(
    *, at: datetime = NOON, lead: UUID | None = None, owner: UUID | None = None, **told: Any
) -> LeadReceived:
    plain: dict[str, Any] = {
        "lead_id": lead or new_id(),
        "client_id": new_id(),
        "source": "site-form",
        "channel": "form",
        "is_returning": owner is not None,
        "owner_id": owner,
        "occurred_at": at,
    }
    return LeadReceived(**plain | told)


@dataclass
class Routing:
    """The service's rules on a database of their own."""

    database: Database

    async def manager(self, *, on_shift: bool = True, **facts: Any) -> UUID:
        manager_id = new_id()
        columns = {"manager_id": manager_id, "name": "Ann", "created_at": NOON, "version": 1}
        columns |= facts
        await self.database.pool.execute(
            f"INSERT INTO managers ({', '.join(columns)})"
            f" VALUES ({', '.join(f'${n}' for n in range(1, len(columns) + 1))})",
            *columns.values(),
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

    async def team(self, team: str, *members: UUID) -> None:
        pool = self.database.pool
        await pool.execute("INSERT INTO teams VALUES ($1, $1, $2)", team, NOON)
        await pool.executemany(
            "INSERT INTO team_members VALUES ($1, $2)", [(team, member) for member in members]
        )

    async def rules(self, rule_set: RuleSet) -> int:
        """Put rules in force; their version."""
        async with self.database.session() as session:
            row = await draft(session, rule_set, note=None, by="test", now=NOON)
            await activate(session, row.version, by="test", now=NOON)
            return row.version

    async def policy(self, body: Policy) -> None:
        """Change a policy; what was remembered of it is forgotten."""
        async with self.database.session() as session:
            before = await policies.newest(session, type(body))
        await self.database.pool.execute(
            "INSERT INTO policies (name, version, body, changed_at, changed_by, reason)"
            " VALUES ($1, $2, $3, $4, 'test', 'test')",
            body.policy_name,
            before.version + 1,
            body.model_dump(mode="json"),
            NOON,
        )
        policies._cache.clear()

    async def attends(self, now: datetime = NOON) -> int:
        async with self.database.transaction() as tx:
            return await attend(tx, now)

    async def loads_are_right(self) -> bool:
        """Whether the loads kept are the leads held."""
        wrong = await self.database.pool.fetch(
            "SELECT manager_id FROM loads WHERE open_leads <> (SELECT count(*) FROM leads WHERE"
            " leads.manager_id = loads.manager_id AND state IN ('offered', 'claimed'))"
        )
        return wrong == []

    async def hears(self, *events: Event) -> None:
        inbox = Inbox(self.database, Dispatcher(SUBSCRIPTIONS))
        await inbox.apply([record_of(event) for event in events])

    async def offers(self, now: datetime = NOON) -> None:
        fired = 1
        while fired:
            async with self.database.pool.acquire() as connection:
                fired = await fire_once(OFFERING, connection, now)

    async def fires(self, fire: Fire, now: datetime) -> int:
        """Let a timer fire until nothing is due; how many rows."""
        total, fired = 0, 1
        while fired:
            async with self.database.transaction() as tx:
                fired = await fire(tx, now)
            total += fired
        return total

    async def sweeps(self, now: datetime) -> int:
        return await self.fires(reassign_lapsed_leads, now)

    async def lead(self, lead_id: UUID) -> asyncpg.Record:
        row = await self.database.pool.fetchrow("SELECT * FROM leads WHERE lead_id=$1", lead_id)
        assert row is not None
        return row

    async def comes(self, count: int = 1, **options: Any) -> list[UUID]:
        """Leads come in and are offered; their ids."""
        events = [received(**options) for _ in range(count)]
        await self.hears(*events)
        await self.offers(options.get("at", NOON))
        return [event.lead_id for event in events]

    async def spread(self) -> Counter[UUID]:
        """How many leads each manager holds."""
        rows = await self.database.pool.fetch(
            "SELECT manager_id FROM leads WHERE state IN ('offered', 'claimed')"
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
