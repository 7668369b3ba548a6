"""Deals of a steady state: 100,000 clients who have bought before, and records of new deals."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from libs.shared import kafka, migrations
from libs.shared.cloudevents import Envelope, encode_headers
from libs.shared.database import Connection, Database
from libs.shared.events import DealClosed, SegmentChanged
from libs.shared.ids import new_id
from libs.shared.kafka import Outgoing, Publisher, Topic
from libs.shared.telemetry import new_traceparent
from services.scoring.rules_in_force import rules_in_force
from services.scoring.score_keeping import keep
from services.scoring.standing import Change, Standing
from services.scoring.touches.planning import plan_changed_clients
from services.scoring.touches.touch_clock import turn_due_touches
from tests.benchmarks.servers import Servers, new_database

CLIENTS = 100_000
DAYS = 360  # how long ago a purchase may be; every one counts in the preset's period
_SHAPES = 1_000  # standings that differ; the clients share them
_TEMPLATE = "bench_scored"
PARTITIONS = 4

_chance = random.Random(1)  # the same deals in each run
_clients: list[UUID] = []


async def scored_clients(servers: Servers, name: str) -> tuple[str, list[UUID]]:
    """A database of scoring in which every client has one purchase, a score, a history and a plan.

    Returns:
        Its URL, and the clients.
    """
    if not _clients:
        _clients.extend(new_id() for _ in range(CLIENTS))
        url = await new_database(servers.postgres, _TEMPLATE)
        await migrations.upgrade("scoring", url)
        async with Database.open(url, name="bench", pool_size=1) as database:
            async with database.transaction() as tx:
                await _buy_once(tx, _clients, datetime.now(UTC))
            await _plan_all(database)
            await database.pool.execute("VACUUM ANALYZE")
            await database.pool.execute("CHECKPOINT")
    return await new_database(servers.postgres, name, template=_TEMPLATE), _clients


async def _plan_all(database: Database) -> None:
    """Plan the first touches of all clients, turn what is due, and take it for said.

    As a worker would, who waits and rests in between: that took 13 seconds.
    """
    for step in (plan_changed_clients, turn_due_touches):
        done = 1
        while done:
            async with database.by_keys.acquire() as connection, connection.transaction():
                done = await step(connection, datetime.now(UTC))
    await database.pool.execute("TRUNCATE outbox")


async def until_planned(connection: Connection) -> None:
    """Wait until the worker has nothing to do any more.

    The touches of everybody noted are planned, those that are due are turned, all of it is said.
    """
    while await connection.fetchval(_UNPLANNED):
        await asyncio.sleep(0.1)


_UNPLANNED = """
    SELECT EXISTS (SELECT FROM touch_changes) OR EXISTS (SELECT FROM outbox)
        OR EXISTS (SELECT FROM touch_plans WHERE due_at <= now())
"""


async def _buy_once(tx: Connection, clients: Sequence[UUID], now: datetime) -> None:
    rules = await rules_in_force(tx)
    shapes: list[tuple[Standing, Change, datetime, int]] = []
    for _ in range(_SHAPES):
        at, amount = now - timedelta(days=_chance.randrange(DAYS)), _amount()
        standing = Standing(clients[0])
        (move,) = standing.buy(rules.day_of(at), amount, at=now, rules=rules)
        shapes.append((standing, move, at, amount))
    mine = [(client, *shapes[n % _SHAPES]) for n, client in enumerate(clients)]
    await keep(tx, [replace(standing, client_id=c) for c, standing, *_ in mine], [], rules)
    await tx.copy_records_to_table(
        "purchases",
        records=[
            (new_id(), client, rules.day_of(at), at, amount, "RUB")
            for client, _, _, at, amount in mine
        ],
        columns=["deal_id", "client_id", "day", "closed_at", "amount_minor", "currency"],
    )
    await tx.copy_records_to_table(
        "segment_history",
        records=[
            (
                client,
                1,
                None,
                move.new_segment,
                *(move.scores or ()),
                1,
                move.as_of,
                now,
                "purchase",
            )
            for client, _, move, *_ in mine
        ],
    )
    await tx.execute("INSERT INTO inbox (event_id) SELECT uuidv7() FROM scores")


def _amount() -> int:
    return _chance.randrange(1_000, 10_000_000)


def deals_of(clients: Sequence[UUID], count: int) -> list[DealClosed]:
    """New deals; keys uniform, days and amounts too."""
    now = datetime.now(UTC)
    return [
        DealClosed(
            deal_id=new_id(),
            client_id=_chance.choice(clients),
            closed_at=now - timedelta(days=_chance.randrange(DAYS)),
            amount_minor=_amount(),
            currency="RUB",
            occurred_at=now,
        )
        for _ in range(count)
    ]


def outgoing(topic: str, deal: DealClosed) -> Outgoing:
    """The record that contacts' relay would send."""
    envelope = Envelope(
        id=deal.event_id,
        source="/contacts",
        type=deal.wire_type(),
        time=deal.occurred_at,
        key=deal.key,
        correlation_id=str(deal.deal_id),
        traceparent=new_traceparent(),
    )
    data = deal.__pydantic_serializer__.to_json(deal)
    return Outgoing(topic, deal.key.encode(), data, encode_headers(envelope))


async def make_topics(servers: Servers, prefix: str) -> str:
    """The topics of deals and segments under a prefix; the name of that of deals."""
    topics = [Topic(prefix + DealClosed.topic), Topic(prefix + SegmentChanged.topic)]
    await kafka.ensure_topics(servers.kafka, topics, partitions=PARTITIONS, replication=1)
    return prefix + DealClosed.topic


async def close_deals(servers: Servers, topic: str, clients: Sequence[UUID], count: int) -> None:
    """Let this many deals stand in a topic."""
    publisher = Publisher(servers.kafka, client_id="bench")
    try:
        for _ in range(0, count, 4_000):
            await publisher.send_all([outgoing(topic, d) for d in deals_of(clients, 4_000)])
    finally:
        await publisher.close()
