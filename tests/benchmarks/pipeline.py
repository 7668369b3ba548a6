"""Scoring's inbox beside the least that an inbox, an aggregate and an outbox can cost.

Ours reads real records: CloudEvents headers, JSON, the rules, history and segment.changed. The
floor is three set-based statements in one transaction, fed with values that are decoded already.
Both hear of the same deals of 100,000 clients, keys uniform, on tables that begin empty.
"""

import gc
import random
import time
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg

from libs.shared import migrations
from libs.shared.database import SERVER_SETTINGS, Database
from libs.shared.events import DealClosed
from libs.shared.ids import new_id
from libs.shared.inbox import Inbox
from libs.shared.kafka import Record
from libs.shared.subscriptions import Dispatcher
from services.scoring.subscriptions import SUBSCRIPTIONS
from tests.benchmarks.figures import Figure
from tests.benchmarks.servers import new_database
from tests.shared.streams import NOON, record_of

CLIENTS = 100_000
BATCH = 1_000
BATCHES = 10  # in a round
ROUNDS = 5

_TABLES = """
CREATE TABLE inbox (event_id uuid PRIMARY KEY);
CREATE TABLE totals (client_id uuid PRIMARY KEY, deals int NOT NULL, amount_minor bigint NOT NULL,
    last_at timestamptz NOT NULL);
CREATE TABLE outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text NOT NULL,
    key text NOT NULL, data bytea NOT NULL);
"""
_REMEMBER = """
    INSERT INTO inbox SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING RETURNING event_id
"""
_ADD_UP = """
    INSERT INTO totals AS t
    SELECT client, count(*), sum(amount), max(at)
    FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[]) AS g (client, amount, at)
    GROUP BY client ORDER BY client
    ON CONFLICT (client_id) DO UPDATE SET deals = t.deals + excluded.deals,
        amount_minor = t.amount_minor + excluded.amount_minor,
        last_at = greatest(t.last_at, excluded.last_at)
"""
_SAY = """
    INSERT INTO outbox (topic, key, data)
    SELECT 'segments', * FROM unnest($1::text[], $2::bytea[])
"""

Columns = list[list[object]]


async def measure(postgres: str) -> list[Figure]:
    url = await new_database(postgres, "bench_scoring")
    await migrations.upgrade("scoring", url)
    floor_url = await new_database(postgres, "bench_scoring_floor")
    floor = await asyncpg.connect(floor_url, server_settings=SERVER_SETTINGS)
    await floor.execute(_TABLES)
    clients = [new_id() for _ in range(CLIENTS)]
    chance = random.Random(1)
    pairs = []
    async with Database.open(url, name="bench", pool_size=2) as database:
        inbox = Inbox(database, Dispatcher(SUBSCRIPTIONS))
        for _ in range(ROUNDS + 1):
            batches = [_deals(clients, chance) for _ in range(BATCHES)]
            values = [_values(deals) for deals in batches]
            records = [[record_of(deal) for deal in deals] for deals in batches]
            gc.collect()
            gc.freeze()  # what was made for a round is not searched for garbage at ours' expense
            pairs.append((await _floor_rate(floor, values), await _rate(inbox, records)))
            gc.unfreeze()
        await _demand_all(database, (ROUNDS + 1) * BATCHES * BATCH)
    await floor.close()
    return [Figure.of("pipeline", "events/s", pairs[1:])]  # the first round warms up


def _deals(clients: Sequence[UUID], chance: random.Random) -> list[DealClosed]:
    return [
        DealClosed(
            deal_id=new_id(),
            client_id=chance.choice(clients),
            closed_at=NOON - timedelta(days=chance.randrange(365)),
            amount_minor=chance.randrange(1_000, 10_000_000),
            currency="RUB",
            occurred_at=NOON,
        )
        for _ in range(BATCH)
    ]


def _values(deals: Sequence[DealClosed]) -> Columns:
    return [
        [deal.event_id for deal in deals],
        [deal.client_id for deal in deals],
        [deal.amount_minor for deal in deals],
        [deal.closed_at for deal in deals],
        [deal.key for deal in deals],
        [deal.model_dump_json().encode() for deal in deals],
    ]


async def _floor_rate(connection: asyncpg.Connection, batches: Sequence[Columns]) -> float:
    began = time.perf_counter()
    for ids, clients, amounts, instants, keys, data in batches:
        async with connection.transaction():
            await connection.fetch(_REMEMBER, ids)
            await connection.execute(_ADD_UP, clients, amounts, instants)
            await connection.execute(_SAY, keys, data)
    return BATCHES * BATCH / (time.perf_counter() - began)


async def _rate(inbox: Inbox, batches: Sequence[Sequence[Record]]) -> float:
    began = time.perf_counter()
    for records in batches:
        await inbox.apply(records)
    return BATCHES * BATCH / (time.perf_counter() - began)


async def _demand_all(database: Database, deals: int) -> None:
    """A fast inbox that lays everything aside would be no record."""
    stored = await database.pool.fetchval("SELECT count(*) FROM purchases")
    if stored != deals:
        raise RuntimeError(f"{deals} deals were heard, {stored} are purchases")
