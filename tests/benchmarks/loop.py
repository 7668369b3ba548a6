"""The whole way in one worker process: deal.closed in Kafka to segment.changed in Kafka.

Scoring's worker runs as in production, consumer and relay side by side. The floor is that of
`pipeline`: it sends nothing. While a backlog is made and the floor is measured the worker is held
(SIGSTOP, shorter than its session); it goes on with the clock, which stops when the last
segment.changed stands in the broker. Touches are planned three seconds after a swarm of deals, when
a round is over; what was noted for it is forgotten then, or it would be in the floor's way.
"""

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.benchmarks.deals import PARTITIONS, close_deals, make_topics, scored_clients
from tests.benchmarks.figures import Figure
from tests.benchmarks.floor import Floor
from tests.benchmarks.servers import Servers, scoring_worker

EVENTS = 48_000  # in a round, which takes two seconds then
ROUNDS = 2
PREFIX = "loop."
_LONGEST_SECONDS = 60.0

_FORGET = """
    DELETE FROM touch_changes WHERE id IN (SELECT id FROM touch_changes FOR UPDATE SKIP LOCKED)
"""
_HEARD = "SELECT sum(next_offset) FROM consumer_positions WHERE topic = $1"
# Counting takes as long as hearing hundreds of deals does: only once, at the end.
_PROGRESS = """
    SELECT (SELECT count(*) FROM purchases) AS heard,
        (SELECT count(*) FROM outbox WHERE topic = 'segments') AS waiting,
        (SELECT count(*) FROM segment_history) AS moves
"""


async def measure(servers: Servers) -> list[Figure]:
    topic = await make_topics(servers, PREFIX)
    url, clients = await scored_clients(servers, "bench_loop")
    pairs = []
    async with (
        Floor.open(servers, topic, clients) as floor,
        _said(servers) as said,
        scoring_worker(servers, url, prefix=PREFIX) as worker,
    ):
        connection = await asyncpg.connect(url)
        for round_ in range(ROUNDS + 1):
            worker.send_signal(signal.SIGSTOP)
            try:
                await connection.execute(_FORGET)
                await close_deals(servers, topic, clients, EVENTS)
                limit = await floor.rate(EVENTS)
            finally:
                worker.send_signal(signal.SIGCONT)
            closed = (round_ + 1) * EVENTS
            seconds = await _until_said(connection, said, closed, len(clients), worker)
            pairs.append((limit, EVENTS / seconds))
        await connection.close()
    return [Figure.of("loop", "events/s", pairs[1:], bar=0.5, aim=0.75)]  # the first warms up


@asynccontextmanager
async def _said(servers: Servers) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=servers.kafka, group_id=None)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def _until_said(
    connection: asyncpg.Connection,
    said: AIOKafkaConsumer,
    closed: int,
    before: int,
    worker: "subprocess.Popen[bytes]",
) -> float:
    """Seconds until everything was heard and all that follows stands in the broker.

    Args:
        closed: Deals that stand in the topic.
        before: Purchases, each with a move in the history, that were never told or said.
    """
    began = changed = time.perf_counter()
    partitions = [TopicPartition(PREFIX + "segments", n) for n in range(PARTITIONS)]
    count = -1
    while True:
        now_there = sum((await said.end_offsets(partitions)).values())
        if now_there != count:
            count, changed = now_there, time.perf_counter()
        elif (
            time.perf_counter() - changed > 0.1
            and await connection.fetchval(_HEARD, PREFIX + "deals") == closed
        ):  # has it come to its end?
            row = await connection.fetchrow(_PROGRESS)
            assert row is not None  # an aggregate always has one
            done = row["heard"] - before, row["waiting"], row["moves"] - before
            if done == (closed, 0, count):
                return changed - began
        if worker.poll() is not None or time.perf_counter() - began > _LONGEST_SECONDS:
            raise RuntimeError(f"{count} are said, {await connection.fetchrow(_PROGRESS)}")
        await asyncio.sleep(0.03)
