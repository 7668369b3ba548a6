"""A scoring database, its inbox, and shortcuts to say events and to read what followed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from libs.shared.database import Database
from libs.shared.events import DealClosed, DealReversed, Event
from libs.shared.ids import new_id
from libs.shared.inbox import Inbox
from libs.shared.subscriptions import Dispatcher
from libs.shared.timers import Fire
from services.scoring.ageing import age_due_clients
from services.scoring.main import build
from services.scoring.rescoring import rescore
from services.scoring.rule_change import apply_new_rules
from services.scoring.settings import ScoringSettings
from services.scoring.subscriptions import SUBSCRIPTIONS
from services.scoring.touches.planning import plan_changed_clients, plan_next_stretch
from services.scoring.touches.touch_clock import turn_due_touches
from tests.apps import App, running
from tests.conftest import FreshDatabase
from tests.shared.streams import record_of

NEW_YEAR = datetime(2025, 1, 1, 9, tzinfo=UTC)


def closed(
    client: UUID,
    *,
    ago: int = 0,
    money: int = 100_000,
    at: datetime = NEW_YEAR,
    deal: UUID | None = None,
    currency: str = "RUB",
) -> DealClosed:
    return DealClosed(
        deal_id=deal or new_id(),
        client_id=client,
        closed_at=at - timedelta(days=ago),
        amount_minor=money,
        currency=currency,
        occurred_at=at,
    )


def reversed_(
    deal: DealClosed, *, money: int | None = None, at: datetime = NEW_YEAR
) -> DealReversed:
    return DealReversed(
        reversal_id=new_id(),
        deal_id=deal.deal_id,
        client_id=deal.client_id,
        reversed_at=at,
        amount_minor=deal.amount_minor if money is None else money,
        currency=deal.currency,
        is_full=money is None,
        reason="broken",
        occurred_at=at,
    )


@dataclass
class Scoring:
    """The service's rules on a database of their own."""

    database: Database
    inbox: Inbox

    async def hears(self, *events: Event) -> None:
        await self.inbox.apply([record_of(event) for event in events])

    async def ages_until(self, now: datetime) -> None:
        fired = 1
        while fired:
            async with self.database.transaction() as tx:
                fired = await age_due_clients(tx, now)

    async def plans(self, now: datetime) -> None:
        """Plan whoever was noted, and everybody after a change of rules."""
        await self._exhaust(plan_changed_clients, now)
        await self._exhaust(plan_next_stretch, now)

    async def turns_touches(self, now: datetime) -> None:
        """Plan, and let the clock of touches come to an instant."""
        await self.plans(now)
        await self._exhaust(turn_due_touches, now)

    async def _exhaust(self, fire: Fire, now: datetime) -> None:
        fired = 1
        while fired:
            async with self.database.transaction() as tx:
                fired = await fire(tx, now)

    async def applies_new_rules(self, now: datetime) -> None:
        """Until every change is at its end; transactions of others may have to end first."""
        async with asyncio.timeout(20):
            while await self.database.pool.fetchval(
                "SELECT 1 FROM rule_changes WHERE due_at IS NOT NULL"
            ):
                async with self.database.transaction() as tx:
                    await apply_new_rules(tx, now)

    async def is_rescored(self, now: datetime) -> asyncpg.Record:
        await self.database.pool.execute(
            "INSERT INTO rescorings (rescoring_id, state, requested_at, requested_by, due_at)"
            " VALUES ($1, 'running', $2, 'test', $2)",
            new_id(),
            now,
        )
        fired = 1
        while fired:
            async with self.database.transaction() as tx:
                fired = await rescore(tx, now)
        row = await self.database.pool.fetchrow(
            "SELECT * FROM rescorings ORDER BY requested_at DESC, rescoring_id DESC LIMIT 1"
        )
        assert row is not None
        return row

    async def score(self, client: UUID) -> asyncpg.Record:
        row = await self.database.pool.fetchrow("SELECT * FROM scores WHERE client_id=$1", client)
        assert row is not None
        return row

    async def everything(self) -> dict[str, Sequence[asyncpg.Record]]:
        """All that scoring knows, in an order that does not depend on how it came to know it."""
        return {
            table: await self.database.pool.fetch(f"SELECT * FROM {table} ORDER BY {order}")
            for table, order in (
                ("scores", "client_id"),
                ("segment_history", "client_id, seq"),
                ("purchases", "deal_id"),
            )
        }

    async def besides(self) -> list[object]:
        """What stands beside `everything`: what is to be sent, to be planned, and how many."""
        fetch = self.database.pool.fetch
        told = await fetch(
            "SELECT shard, topic, also_topic, key, type, time, data, correlation_id, causation_id,"
            " traceparent FROM outbox ORDER BY key, id"
        )
        planned = await fetch("SELECT DISTINCT client_id FROM touch_changes ORDER BY client_id")
        return [told, planned, await fetch("SELECT sum(added) FROM purchase_counts")]

    async def said(self) -> list[tuple[str, int]]:
        """The segment.changed events in the outbox: client and seq, in the order of saying."""
        rows = await self.database.pool.fetch(
            "SELECT key, convert_from(data, 'UTF8')::jsonb AS data FROM outbox"
            " WHERE type = 'baza.segment.changed.v1' ORDER BY id"
        )
        return [(row["key"], row["data"]["seq"]) for row in rows]


@pytest.fixture
async def url(fresh_database: FreshDatabase) -> str:
    return await fresh_database("scoring")


@pytest.fixture
async def scoring(url: str) -> AsyncIterator[Scoring]:
    async with Database.open(url, name="test", pool_size=4) as database:
        yield Scoring(database, Inbox(database, Dispatcher(SUBSCRIPTIONS)))


@pytest.fixture
async def api(url: str) -> AsyncIterator[App]:
    """The API on the database of `scoring`."""
    async with running(build, ScoringSettings, url) as app:
        yield app


@pytest.fixture
async def fresh_scoring(fresh_database: FreshDatabase) -> AsyncIterator[Scoring]:
    """A second, independent scoring: what it comes to know is compared with the first."""
    async with Database.open(
        await fresh_database("scoring"), name="other", pool_size=4
    ) as database:
        yield Scoring(database, Inbox(database, Dispatcher(SUBSCRIPTIONS)))


@pytest.fixture
async def second_worker(scoring: Scoring) -> AsyncIterator[Scoring]:
    """Another worker of the same service on the same database."""
    async with Database.open(scoring.database.dsn, name="second", pool_size=2) as database:
        yield Scoring(database, Inbox(database, Dispatcher(SUBSCRIPTIONS)))
