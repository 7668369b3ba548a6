"""A backlog is sent quickly, whatever PostgreSQL planned for an empty outbox (decision 17)."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from libs.shared import kafka, outbox
from libs.shared.database import Database
from libs.shared.kafka import Publisher, Topic
from libs.shared.relay import _DELETE, _READ, BATCH, Relay

Filled = Callable[[int], Awaitable[None]]


@pytest.fixture
async def topics(kafka_address: str, topic_prefix: str) -> str:
    await kafka.ensure_topics(
        kafka_address, [Topic(topic_prefix + "leads")], partitions=4, replication=1
    )
    return topic_prefix


_FILL = """
    INSERT INTO outbox (shard, event_id, topic, key, type, time, data)
    SELECT n % 8, uuidv7(), 'leads', n::text, 'baza.lead.claimed.v1', now(), '{}'
    FROM generate_series(1, $1::int) AS n
"""


async def _seconds_to_send(
    plumbing: Database, address: str, prefix: str, before: Callable[[Filled], Awaitable[None]]
) -> float:
    """How long a backlog of 45,000 takes a relay that has been through something."""
    publisher = Publisher(address, client_id="test")
    relay = Relay(
        plumbing.dsn, source="/", publisher=publisher, bell=plumbing.wake.bell(), prefix=prefix
    )
    relay.held = list(range(outbox.SHARDS))
    connection = await relay.connected()

    async def sent(count: int) -> None:
        await plumbing.pool.execute(_FILL, count)
        while await relay.send_once(connection):
            pass

    try:
        async with asyncio.timeout(180):
            await before(sent)
            began = time.monotonic()
            await sent(45_000)
            return time.monotonic() - began
    finally:
        await connection.close()
        await publisher.close()


async def test_statistics_of_an_empty_outbox_do_not_make_a_backlog_slow(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    async def before(sent: Filled) -> None:
        await sent(20_000)
        await sent(40_000)  # PostgreSQL has a plan for any parameters now
        await plumbing.pool.execute(_FILL, 4_000)
        await plumbing.pool.execute("DELETE FROM outbox WHERE id < (SELECT max(id) FROM outbox)")
        await plumbing.pool.execute("VACUUM ANALYZE outbox")  # as autovacuum does at any moment

    # 2 s; a minute and more as a join with what was sent.
    assert await _seconds_to_send(plumbing, kafka_address, topics, before) < 20


async def test_a_plan_made_for_a_few_rows_does_not_make_a_backlog_slow(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    async def before(sent: Filled) -> None:
        for _ in range(12):
            await sent(3)
        await plumbing.pool.execute("VACUUM ANALYZE outbox")
        for _ in range(12):
            await sent(3)

    # 2 s; 10 and more where the whole table is read for what was sent.
    assert await _seconds_to_send(plumbing, kafka_address, topics, before) < 20


async def test_a_round_never_reads_the_whole_table(plumbing: Database, kafka_address: str) -> None:
    """Which for three rows would be the cheapest; and a plan that was made once is kept."""
    publisher = Publisher(kafka_address, client_id="test")
    relay = Relay(plumbing.dsn, source="/", publisher=publisher, bell=plumbing.wake.bell())
    await plumbing.pool.execute(_FILL, 3)
    await plumbing.pool.execute("VACUUM ANALYZE outbox")
    connection = await relay.connected()
    plans = [
        *await connection.fetch("EXPLAIN " + _READ, list(range(outbox.SHARDS)), BATCH),
        *await connection.fetch("EXPLAIN " + _DELETE, 1, "{1,2,3}"),
    ]
    await connection.close()

    assert [line for (line,) in plans if "Seq Scan" in line] == []
