"""From deal.closed to segment.changed at 200 a second, beside one bare insert and produce.

Two processes that work in turn, scoring's worker and `raw_loop.py`, with the same fetch wait.
Every deal is the first of its client, so each causes one segment.changed. The time is taken here,
from before the send until the answer has been fetched. Three seconds after a deal its client's next
touch is planned: rounds are longer than that, ours follow one another between two of the floor's,
and the floor's begin when all are planned, or it would have our work in its way and we would not.
What setting up has left in the kernel's memory is written to the disk before: half a minute old, it
would be in the middle of a round, and commits wait for it (16 to 26 ms, traced).
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from libs.shared import kafka
from libs.shared.ids import new_id
from libs.shared.kafka import Topic
from tests.benchmarks.deals import (
    PARTITIONS,
    deals_of,
    make_topics,
    outgoing,
    scored_clients,
    until_planned,
)
from tests.benchmarks.figures import Figure
from tests.benchmarks.servers import FETCH_WAIT_MS, Servers, new_database, process, scoring_worker

A_SECOND = 200
EVENTS = 640  # in a round, which takes a little longer than three seconds
PREFIX = "latency."
RAW_IN, RAW_OUT = PREFIX + "raw-in", PREFIX + "raw-out"
_LONGEST_SECONDS = 20.0


async def measure(servers: Servers) -> list[Figure]:
    deals = await make_topics(servers, PREFIX)
    raw = [Topic(RAW_IN), Topic(RAW_OUT)]
    await kafka.ensure_topics(servers.kafka, raw, partitions=PARTITIONS, replication=1)
    url, _ = await scored_clients(servers, "bench_latency")
    raw_url = await _raw_database(servers)
    command = [sys.executable, "-m", "tests.benchmarks.raw_loop", servers.kafka, raw_url]
    async with scoring_worker(servers, url, prefix=PREFIX):
        with process([*command, RAW_IN, RAW_OUT, str(FETCH_WAIT_MS)], {}):
            async with (
                asyncpg.create_pool(url, min_size=1, max_size=1) as pool,
                client(servers, RAW_IN, RAW_OUT) as floor,
                client(servers, deals, PREFIX + "segments") as ours,
            ):
                for one in (floor, ours):  # warms up, planning and the broker's code included
                    await one.round(EVENTS)
                await _done(pool)
                await asyncio.to_thread(os.sync)
                least = [await floor.round(EVENTS)]
                mine = [await ours.round(EVENTS) for _ in range(2)]
                await _done(pool)
                least.append(await floor.round(EVENTS))
    return [Figure.of_latency("latency", least, mine, bar=1.5, aim=1.25)]


async def _done(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        await until_planned(connection)


async def _raw_database(servers: Servers) -> str:
    url = await new_database(servers.postgres, "bench_raw_loop")
    connection = await asyncpg.connect(url)
    await connection.execute(
        "CREATE TABLE heard (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " key text NOT NULL, data bytea NOT NULL)"
    )
    await connection.close()
    return url


class _Client:
    """Sends deals into one topic and awaits an answer to each, of the same key, in another."""

    def __init__(self, topic: str, producer: AIOKafkaProducer, answers: AIOKafkaConsumer) -> None:
        self._topic = topic
        self._producer = producer
        self._answers = answers
        self._sent: dict[bytes, float] = {}
        self._took: list[float] = []

    async def round(self, events: int) -> list[float]:
        """How long each of so many deals took, in milliseconds."""
        self._sent.clear()
        self._took.clear()
        async with asyncio.timeout(_LONGEST_SECONDS), asyncio.TaskGroup() as group:
            group.create_task(self._hear(events))
            await self._send(events)
        return [seconds * 1000 for seconds in self._took]

    async def _send(self, events: int) -> None:
        deals = [deals_of([new_id()], 1)[0] for _ in range(events)]
        records = [outgoing(self._topic, deal) for deal in deals]
        began = time.perf_counter()
        for number, record in enumerate(records):
            await asyncio.sleep(began + number / A_SECOND - time.perf_counter())
            self._sent[record.key] = time.perf_counter()
            await self._producer.send(self._topic, record.value, record.key, headers=record.headers)

    async def _hear(self, events: int) -> None:
        while len(self._took) < events:
            batches: dict[Any, list[Any]] = await self._answers.getmany(timeout_ms=200)
            now = time.perf_counter()
            for record in (r for batch in batches.values() for r in batch):
                if (sent := self._sent.pop(record.key, None)) is not None:  # others move too
                    self._took.append(now - sent)


@asynccontextmanager
async def client(servers: Servers, topic: str, answers: str) -> AsyncIterator[_Client]:
    """Somebody who sends deals and awaits what follows from them."""
    producer = AIOKafkaProducer(bootstrap_servers=servers.kafka, acks="all")
    consumer = AIOKafkaConsumer(
        answers, bootstrap_servers=servers.kafka, fetch_max_wait_ms=FETCH_WAIT_MS
    )
    await producer.start()
    await consumer.start()
    try:
        yield _Client(topic, producer, consumer)
    finally:
        await consumer.stop()
        await producer.stop()
