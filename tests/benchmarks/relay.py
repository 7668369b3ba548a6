"""The relay beside a plain one: delete a thousand rows, send them, commit when all are there.

Both empty a full outbox into the same Apache Kafka, in turn. The plain one keeps no order between
several of itself, shards nothing and makes no CloudEvents.
"""

import asyncio
import time
from contextlib import suppress

import asyncpg
from aiokafka import AIOKafkaProducer

from libs.shared import kafka, migrations, outbox
from libs.shared.database import SERVER_SETTINGS
from libs.shared.events import DealClosed
from libs.shared.ids import new_id
from libs.shared.kafka import Publisher, Topic
from libs.shared.relay import Relay
from libs.shared.wake import Bell
from tests.benchmarks.figures import Figure
from tests.benchmarks.servers import Servers, new_database
from tests.shared.streams import NOON

ROWS = 20_000
ROUNDS = 3
PREFIX = "relay."
FLOOR_TOPIC = PREFIX + "floor"
LONGEST_SECONDS = 60.0

_TAKE = """
    DELETE FROM outbox WHERE (shard, id) IN (
        SELECT shard, id FROM outbox ORDER BY shard, id LIMIT 1000 FOR UPDATE SKIP LOCKED
    ) RETURNING key, data
"""


async def measure(servers: Servers) -> list[Figure]:
    url = await new_database(servers.postgres, "bench_relay")
    floor_url = await new_database(servers.postgres, "bench_relay_floor")
    for each in (url, floor_url):
        await migrations.upgrade("scoring", each)
    topics = [Topic(PREFIX + DealClosed.topic), Topic(FLOOR_TOPIC)]
    await kafka.ensure_topics(servers.kafka, topics, partitions=4, replication=1)
    pairs = await _pairs(url, floor_url, servers.kafka)
    return [Figure.of("relay", "events/s", pairs, bar=0.7, aim=1.2)]


async def _pairs(url: str, floor_url: str, broker: str) -> list[tuple[float, float]]:
    ours = await asyncpg.connect(url)
    floor = await asyncpg.connect(floor_url, server_settings=SERVER_SETTINGS)
    producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all", enable_idempotence=True)
    await producer.start()
    bell = Bell()
    publisher = Publisher(broker, client_id="bench")
    relay = Relay(url, source="/contacts", publisher=publisher, bell=bell, prefix=PREFIX)
    sending = asyncio.create_task(relay.run())
    try:
        pairs = []
        for _ in range(ROUNDS + 1):
            await _fill(floor)
            limit = await _floor_rate(floor, producer)
            await _fill(ours)
            pairs.append((limit, await _rate(relay, bell)))
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        await producer.stop()
        await ours.close()
        await floor.close()
    return pairs[1:]  # the first round warms up


async def _fill(connection: asyncpg.Connection) -> None:
    clients = [new_id() for _ in range(ROWS)]
    events = [
        DealClosed(
            deal_id=new_id(),
            client_id=client,
            closed_at=NOON,
            amount_minor=199_900,
            currency="RUB",
            occurred_at=NOON,
        )
        for client in clients
    ]
    await outbox.add_all(connection, events)


async def _floor_rate(connection: asyncpg.Connection, producer: AIOKafkaProducer) -> float:
    began = time.perf_counter()
    sent = 0
    while sent < ROWS:
        async with connection.transaction():
            rows = await connection.fetch(_TAKE)
            acknowledged = [
                await producer.send(FLOOR_TOPIC, row["data"], row["key"].encode()) for row in rows
            ]
            await asyncio.gather(*acknowledged)
        sent += len(rows)
    return ROWS / (time.perf_counter() - began)


async def _rate(relay: Relay, bell: Bell) -> float:
    """From the commit of the rows until the broker has all of them and they are deleted."""
    began = time.perf_counter()
    already = relay.sent
    bell.ring()
    async with asyncio.timeout(LONGEST_SECONDS):
        while relay.sent - already < ROWS:
            await asyncio.sleep(0.002)
    return ROWS / (time.perf_counter() - began)
