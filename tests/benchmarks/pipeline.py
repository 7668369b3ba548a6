"""Scoring's consumer beside the floor, both hearing the same deals from the same Apache Kafka.

Ours is what the worker runs: consumer, inbox, scoring's handlers; see `floor.py` for the other.
Both go on from where they were with a full backlog before them, in the same process, in turn, on
databases that know 100,000 clients. A round begins when the partitions are held and ends with the
commit of the positions.
"""

import asyncio
import gc
import time
from collections.abc import Mapping
from contextlib import suppress

from libs.shared.consumer import Consumer
from libs.shared.database import Database
from libs.shared.inbox import Inbox
from libs.shared.kafka import GroupOffsets, Partition, Subscriber
from libs.shared.leases import Leases
from libs.shared.subscriptions import Dispatcher
from services.scoring.subscriptions import SUBSCRIPTIONS
from tests.benchmarks.deals import close_deals, make_topics, scored_clients
from tests.benchmarks.figures import Figure
from tests.benchmarks.floor import Floor
from tests.benchmarks.servers import Servers

EVENTS = 16_000  # in a round
ROUNDS = 3
PREFIX = "pipeline."
_BACKLOG = (ROUNDS + 2) * EVENTS  # a round may take a little more than its share
_LONGEST_SECONDS = 60.0


class _Counted(Leases):
    """Knows how far we have come."""

    done: dict[Partition, int]
    until: int
    finished: asyncio.Event

    def applied(self, next_offsets: Mapping[Partition, int]) -> None:
        super().applied(next_offsets)
        self.done.update(next_offsets)
        if sum(self.done.values()) >= self.until:
            self.finished.set()


async def measure(servers: Servers) -> list[Figure]:
    topic = await make_topics(servers, PREFIX)
    url, clients = await scored_clients(servers, "bench_scoring")
    await close_deals(servers, topic, clients, _BACKLOG)
    pairs = []
    done: dict[Partition, int] = {}
    async with (
        Floor.open(servers, topic, clients) as floor,
        Database.open(url, name="bench", pool_size=2) as database,
    ):
        for _ in range(ROUNDS + 1):
            gc.collect()
            gc.freeze()  # what the bench itself holds is not searched for garbage
            pairs.append((await floor.rate(EVENTS), await _rate(servers, database, done)))
        await _demand_all(database, len(clients) + sum(done.values()))
    return [Figure.of("pipeline", "events/s", pairs[1:], bar=0.6, aim=0.8)]  # the first warms up


async def _rate(servers: Servers, database: Database, done: dict[Partition, int]) -> float:
    dispatcher = Dispatcher(SUBSCRIPTIONS, PREFIX)
    group, topics = PREFIX + "scoring", [PREFIX + "deals"]
    subscriber = Subscriber(servers.kafka, topics=topics, fetch_wait_ms=100)
    leases = _Counted(database.dsn, group=group, topics=topics)
    before = sum(done.values())
    leases.done, leases.until = done, before + EVENTS
    leases.finished = asyncio.Event()
    consumer = Consumer(
        subscriber, leases, Inbox(database, dispatcher), GroupOffsets(servers.kafka, group)
    )
    hearing = asyncio.create_task(consumer.run())
    try:
        async with asyncio.timeout(_LONGEST_SECONDS):
            while not leases.held:
                await asyncio.sleep(0.001)
            began = time.perf_counter()
            await leases.finished.wait()
        return (sum(done.values()) - before) / (time.perf_counter() - began)
    finally:
        hearing.cancel()
        with suppress(asyncio.CancelledError):
            await hearing


async def _demand_all(database: Database, deals: int) -> None:
    """A fast inbox that lays everything aside would be no record."""
    stored = await database.pool.fetchval("SELECT count(*) FROM purchases")
    if stored != deals:
        raise RuntimeError(f"{deals} deals were heard, {stored} are purchases")
