"""Both lanes of a consumer have a batch in hand when the lease goes or the process dies."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from uuid import UUID

import pytest

from libs.shared import kafka
from libs.shared.consumer import LANES, Consumer
from libs.shared.database import Database
from libs.shared.events import LeadClaimed
from libs.shared.ids import new_id
from libs.shared.inbox import Inbox
from libs.shared.kafka import GroupOffsets, Outgoing, Publisher, Subscriber, Topic
from libs.shared.leases import Leases
from libs.shared.subscriptions import Dispatcher, on
from tests.conftest import free_port
from tests.shared.streams import APPLIED, claimed, keep, partition_of, record_of

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = 4
EPOCHS = 6

_WAITING_FOR_POSITIONS = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event_type = 'Lock' AND query LIKE '%UPDATE consumer_positions%'
"""
_IN_HAND = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND state = 'idle in transaction' AND application_name LIKE 'test-worker%'
"""


@pytest.fixture
async def database(plumbing: Database) -> Database:
    await plumbing.pool.execute(APPLIED)
    return plumbing


@pytest.fixture
async def prefix(kafka_address: str, topic_prefix: str) -> str:
    topics = [Topic(topic_prefix + "leads")]
    await kafka.ensure_topics(kafka_address, topics, partitions=PARTITIONS, replication=1)
    return topic_prefix


def leads_of_every_partition() -> list[UUID]:
    """Three of each, so that each lane has several keys and partitions."""
    found: dict[int, list[UUID]] = {number: [] for number in range(PARTITIONS)}
    while min(map(len, found.values())) < 3:
        lead = new_id()
        found[partition_of(lead, PARTITIONS)].append(lead)
    return [lead for leads in found.values() for lead in leads[:3]]


async def tell(address: str, prefix: str, leads: Sequence[UUID], epochs: Sequence[int]) -> None:
    publisher = Publisher(address, client_id="test")
    records = [record_of(claimed(lead, epoch)) for epoch in epochs for lead in leads]
    await publisher.send_all(
        [Outgoing(prefix + r.topic, r.key or b"", r.value, r.headers) for r in records]
    )
    await publisher.close()


@asynccontextmanager
async def consuming(database: Database, address: str, prefix: str) -> AsyncIterator[Consumer]:
    """Of the group that `odd_worker` hears in."""
    dispatcher = Dispatcher([on(LeadClaimed, keep())], prefix)
    group, heard = prefix + "test", dispatcher.topics()
    consumer = Consumer(
        Subscriber(address, topics=heard, fetch_wait_ms=50),
        Leases(database.dsn, group=group, topics=heard),
        Inbox(database, dispatcher),
        GroupOffsets(address, group),
        batch=10,
    )
    task = asyncio.create_task(consumer.run())
    try:
        yield consumer
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(database: Database, query: str, count: int) -> None:
    async with asyncio.timeout(60):
        while await database.pool.fetchval(query) < count:
            await asyncio.sleep(0.02)


async def assert_applied_once_and_in_order(database: Database, leads: Sequence[UUID]) -> None:
    await until(database, "SELECT count(*) FROM applied", len(leads) * EPOCHS)
    for lead in leads:
        rows = await database.pool.fetch(
            "SELECT epoch FROM applied WHERE lead_id = $1 ORDER BY id", lead
        )
        assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    assert await database.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_leases_lost_under_both_lanes_leave_nothing_undone_or_done_twice(
    database: Database, kafka_address: str, prefix: str
) -> None:
    leads = leads_of_every_partition()
    async with consuming(database, kafka_address, prefix) as loser:
        async with asyncio.timeout(30):
            while len(loser.leases.held) < PARTITIONS:
                await asyncio.sleep(0.02)
        async with database.pool.acquire() as thief, thief.transaction():
            await thief.execute("SELECT FROM consumer_positions FOR UPDATE")
            await tell(kafka_address, prefix, leads, range(1, 4))
            await until(database, _WAITING_FOR_POSITIONS, LANES)
            assert {record.partition % LANES for record in loser.in_hand} == {0, 1}
            await thief.execute("UPDATE consumer_positions SET worker_id = NULL")
        async with consuming(database, kafka_address, prefix):
            await tell(kafka_address, prefix, leads, range(4, EPOCHS + 1))
            await assert_applied_once_and_in_order(database, leads)


async def test_a_crash_with_two_batches_in_hand_leaves_nothing_undone_or_done_twice(
    database: Database, kafka_address: str, prefix: str
) -> None:
    leads = leads_of_every_partition()
    with hanging_worker(database.dsn, kafka_address, prefix) as worker:
        await tell(kafka_address, prefix, leads, range(1, 4))
        await until(database, _IN_HAND, LANES)
        worker.kill()  # what it has written of both batches was never committed
        worker.wait()
    assert await database.pool.fetchval("SELECT count(*) FROM applied") == 0

    async with consuming(database, kafka_address, prefix):
        await tell(kafka_address, prefix, leads, range(4, EPOCHS + 1))
        await assert_applied_once_and_in_order(database, leads)


@contextmanager
def hanging_worker(dsn: str, address: str, prefix: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker of its own process that writes what a batch asks for and never commits it."""
    environment = os.environ | {
        "BAZA_DATABASE_URL": dsn,
        "BAZA_KAFKA": address,
        "BAZA_TOPIC_PREFIX": prefix,
        "BAZA_WORKER_PORT": str(free_port()),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.shared.odd_worker", "keeps_and_hangs"],
        cwd=ROOT,
        env=environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
