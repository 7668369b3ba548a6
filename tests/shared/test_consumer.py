"""The way from Apache Kafka to the inbox: lanes, workers that come and go, outages."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from libs.shared import kafka
from libs.shared.background import beside
from libs.shared.consumer import FIRST_BATCH, LANES, Consumer
from libs.shared.database import Connection, Database
from libs.shared.events import Event, LeadClaimed
from libs.shared.ids import new_id
from libs.shared.inbox import Inbox
from libs.shared.kafka import (
    GroupOffsets,
    Outgoing,
    Publisher,
    Record,
    Subscriber,
    Topic,
)
from libs.shared.leases import NO_FENCE, Fence, Leases
from libs.shared.subscriptions import Dispatcher, Subscription, on
from tests.shared.streams import (
    APPLIED,
    Keeper,
    applied_to,
    claimed,
    keep,
    partition_of,
    record_of,
    released,
)


@pytest.fixture
async def database(plumbing: Database) -> Database:
    await plumbing.pool.execute(APPLIED)
    return plumbing


@asynccontextmanager
async def consuming(
    database: Database,
    address: str,
    prefix: str,
    subscriptions: Sequence[Subscription[Any]],
    *,
    batch: int = 50,
    relay_keeps_up: asyncio.Event | None = None,
    inbox: type[Inbox] = Inbox,
) -> AsyncIterator[Consumer]:
    dispatcher = Dispatcher(subscriptions, prefix)
    heard = dispatcher.topics()
    consumer = Consumer(
        Subscriber(address, topics=heard, fetch_wait_ms=50),
        Leases(database.dsn, group=prefix + "g", topics=heard),
        inbox(database, dispatcher),
        GroupOffsets(address, prefix + "g"),
        batch=batch,
        relay_keeps_up=relay_keeps_up,
    )
    async with beside(consumer.run(), name="consumer"):
        yield consumer


async def send(address: str, prefix: str, events: Sequence[Event]) -> None:
    publisher = Publisher(address, client_id="test")
    records = [record_of(event) for event in events]
    await publisher.send_all(
        [Outgoing(prefix + r.topic, r.key or b"", r.value, r.headers) for r in records]
    )
    await publisher.close()


async def applied_count(database: Database, count: int) -> None:
    async with asyncio.timeout(40):
        while await database.pool.fetchval("SELECT count(*) FROM applied") < count:
            await asyncio.sleep(0.02)


@pytest.fixture
async def leads_topic(kafka_address: str, topic_prefix: str) -> str:
    await kafka.ensure_topics(
        kafka_address, [Topic(topic_prefix + "leads")], partitions=4, replication=1
    )
    return topic_prefix


async def test_a_batch_that_takes_long_does_not_hold_up_the_other_lanes_partitions(
    database: Database, kafka_address: str, leads_topic: str
) -> None:
    leads = [new_id() for _ in range(40)]
    slow = [lead for lead in leads if partition_of(lead, 4) == 0]
    others = [lead for lead in leads if partition_of(lead, 4) in (1, 3)]
    may_go_on = asyncio.Event()
    store = keep()

    async def handle(events: Sequence[LeadClaimed], tx: Connection) -> None:
        if any(event.lead_id in slow for event in events):
            await may_go_on.wait()
        await store(events, tx)

    async with consuming(database, kafka_address, leads_topic, [on(LeadClaimed, handle)]):
        await send(kafka_address, leads_topic, [claimed(lead, 1) for lead in slow])
        await send(
            kafka_address, leads_topic, [claimed(lead, n) for n in (1, 2) for lead in others]
        )
        await applied_count(database, 2 * len(others))
        assert await applied_to(database, slow[0]) == []
        may_go_on.set()
        await applied_count(database, 2 * len(others) + len(slow))

    assert await applied_to(database, others[0]) == [1, 2]


async def test_a_stop_waits_for_the_batch_of_the_slower_lane_too(
    database: Database, kafka_address: str, leads_topic: str
) -> None:
    gates = [asyncio.Event() for _ in range(LANES)]
    in_hand: dict[int, int] = {}

    class Gated(Inbox):
        async def apply(self, records: Sequence[Record], fence: Fence = NO_FENCE) -> None:
            lane = records[0].partition % LANES
            in_hand[lane] = len(records)
            await gates[lane].wait()
            await super().apply(records, fence)

    leads = [new_id() for _ in range(20)]
    await send(kafka_address, leads_topic, [claimed(lead, 1) for lead in leads])
    async with AsyncExitStack() as stack:
        subscriptions = [on(LeadClaimed, keep())]
        await stack.enter_async_context(
            consuming(database, kafka_address, leads_topic, subscriptions, inbox=Gated)
        )
        async with asyncio.timeout(20):
            while len(in_hand) < LANES:
                await asyncio.sleep(0.02)
        stop = asyncio.create_task(stack.aclose())
        for gate in gates:
            await asyncio.sleep(0.3)
            assert not stop.done()
            gate.set()
        await stop

    applied = await database.pool.fetchval("SELECT count(*) FROM applied")
    assert applied == sum(in_hand.values())
    held = "SELECT count(*) FROM consumer_positions WHERE worker_id IS NOT NULL"
    assert await database.pool.fetchval(held) == 0


async def test_a_consumer_lets_a_relay_that_is_behind_catch_up(
    database: Database, kafka_address: str, leads_topic: str
) -> None:
    keeps_up = asyncio.Event()
    subscriptions = [on(LeadClaimed, keep())]
    await send(kafka_address, leads_topic, [claimed(new_id(), 1) for _ in range(200)])
    async with consuming(
        database, kafka_address, leads_topic, subscriptions, batch=10, relay_keeps_up=keeps_up
    ):
        await applied_count(database, 1)  # it is slowed down, not held for ever
        await asyncio.sleep(1.0)  # enough to apply all of them, if nothing held it up
        assert await database.pool.fetchval("SELECT count(*) FROM applied") <= 40
        keeps_up.set()
        await applied_count(database, 200)


async def test_a_backlog_is_begun_with_a_small_batch(
    database: Database, kafka_address: str, leads_topic: str
) -> None:
    sizes: list[int] = []
    store = keep()

    async def handle(events: Sequence[LeadClaimed], tx: Connection) -> None:
        sizes.append(len(events))
        await store(events, tx)

    await send(kafka_address, leads_topic, [claimed(new_id(), 1) for _ in range(6_000)])
    async with consuming(
        database, kafka_address, leads_topic, [on(LeadClaimed, handle)], batch=1_500
    ):
        await applied_count(database, 6_000)

    assert sizes[0] <= FIRST_BATCH
    assert FIRST_BATCH < max(sizes) <= 1_500


async def test_workers_that_come_and_go_apply_every_event_once_and_in_order(
    database: Database, kafka_address: str, leads_topic: str
) -> None:
    leads = [new_id() for _ in range(30)]
    events = [claimed(lead, epoch) for epoch in range(1, 21) for lead in leads]
    subscriptions = [on(LeadClaimed, keep())]

    async with consuming(database, kafka_address, leads_topic, subscriptions):
        await send(kafka_address, leads_topic, events[:200] + events[:50])
        async with consuming(database, kafka_address, leads_topic, subscriptions):
            await send(kafka_address, leads_topic, events[200:400])
            await applied_count(database, 100)
        await send(kafka_address, leads_topic, events[400:])
        await applied_count(database, 600)

    assert await database.pool.fetchval("SELECT count(*) FROM applied") == 600
    for lead in leads:
        assert await applied_to(database, lead) == list(range(1, 21))


async def test_an_outage_of_the_database_is_waited_for(
    database: Database, kafka_address: str, leads_topic: str
) -> None:
    lead = new_id()
    outage = {"left": 3}

    class Suffers(Keeper):
        async def __call__(self, events: Sequence[Any], tx: Connection) -> None:
            if outage["left"]:
                outage["left"] -= 1
                raise asyncpg.CannotConnectNowError("the database system is starting up")
            await super().__call__(events, tx)

    subscriptions = [on(LeadClaimed, Suffers(lambda event: False))]
    async with consuming(database, kafka_address, leads_topic, subscriptions):
        await send(kafka_address, leads_topic, [claimed(lead, epoch) for epoch in range(1, 11)])
        await applied_count(database, 10)

    assert await applied_to(database, lead) == list(range(1, 11))
    assert outage["left"] == 0


async def test_events_that_nobody_here_hears_still_move_the_position(
    database: Database, kafka_address: str, leads_topic: str
) -> None:
    events = [released(new_id(), 1) for _ in range(5)]

    async with consuming(database, kafka_address, leads_topic, [on(LeadClaimed, keep())]):
        await send(kafka_address, leads_topic, events)
        async with asyncio.timeout(20):
            while (
                await database.pool.fetchval("SELECT sum(next_offset) FROM consumer_positions") != 5
            ):
                await asyncio.sleep(0.02)

    assert await database.pool.fetchval("SELECT count(*) FROM inbox") == 0
