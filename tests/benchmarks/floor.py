"""The floor of a consumer: the least that hearing events exactly once can cost, in one process.

It reads the records that Baza reads, with a group of its own and the same client: getmany of a
thousand, the value decoded into a typed struct (msgspec), the id taken from the header, then ONE
transaction of three set-based statements - inbox, aggregate, outbox with one encoded row for each
event - and the offsets committed before the next batch. It does not: judge values, read or check
other headers, keep purchases, days or a history, know rules, time, segments or lanes, look for dead
letters, survive a rebalance or an outage, wake anybody, count for metrics. Source: performance.md,
section 3, "3 statements, msgspec"; M1 of section 10.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from libs.shared.database import SERVER_SETTINGS
from tests.benchmarks.servers import Servers, new_database

BATCH = 1_000

_TABLES = """
CREATE TABLE inbox (event_id uuid PRIMARY KEY);
CREATE TABLE totals (client_id uuid PRIMARY KEY, deals int NOT NULL, amount_minor bigint NOT NULL,
    last_at timestamptz NOT NULL) WITH (fillfactor = 80);
CREATE TABLE outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text NOT NULL,
    key text NOT NULL, data bytea NOT NULL);
"""
_FILL = "INSERT INTO totals SELECT unnest($1::uuid[]), 1, 199900, now()"
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


class _Deal(msgspec.Struct):
    deal_id: UUID
    client_id: UUID
    closed_at: datetime
    amount_minor: int
    currency: str
    occurred_at: datetime


class _Changed(msgspec.Struct):
    client_id: UUID
    amount_minor: int
    reason: str
    occurred_at: datetime


_decode = msgspec.json.Decoder(_Deal).decode
_encode = msgspec.json.Encoder().encode


class Floor:
    """A bare consumer of a topic of deals."""

    def __init__(self, servers: Servers, topic: str, connection: asyncpg.Connection) -> None:
        self._servers = servers
        self._topic = topic
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def open(
        cls, servers: Servers, topic: str, clients: Sequence[UUID]
    ) -> AsyncIterator["Floor"]:
        """With a database of its own in which the clients are known already."""
        url = await new_database(servers.postgres, "bench_floor")
        connection = await asyncpg.connect(url, server_settings=SERVER_SETTINGS)
        await connection.execute(_TABLES)
        await connection.execute(_FILL, clients)
        await connection.execute("INSERT INTO inbox SELECT uuidv7() FROM totals")
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
        try:
            yield cls(servers, topic, connection)
        finally:
            await connection.close()

    async def rate(self, events: int) -> float:
        """Hear this many events more; how many a second, from the first fetch to the commit."""
        consumer = AIOKafkaConsumer(
            self._topic,
            bootstrap_servers=self._servers.kafka,
            group_id=self._topic + "-floor",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=2 * 1024 * 1024,
        )
        await consumer.start()
        try:
            began = time.perf_counter()
            done = 0
            while done < events:
                batches = await consumer.getmany(timeout_ms=200, max_records=BATCH)
                if not batches:
                    continue
                done += await self._apply([r for batch in batches.values() for r in batch])
                await consumer.commit(
                    {TopicPartition(*at): batch[-1].offset + 1 for at, batch in batches.items()}
                )
            return done / (time.perf_counter() - began)
        finally:
            await consumer.stop()

    async def _apply(self, records: Sequence[Any]) -> int:
        heard = {UUID(dict(r.headers)["ce_id"].decode()): _decode(r.value) for r in records}
        async with self._connection.transaction():
            new = await self._connection.fetch(_REMEMBER, list(heard))
            deals = [heard[row[0]] for row in new]
            await self._connection.execute(
                _ADD_UP,
                [deal.client_id for deal in deals],
                [deal.amount_minor for deal in deals],
                [deal.closed_at for deal in deals],
            )
            said = [_Changed(d.client_id, d.amount_minor, "deal", d.occurred_at) for d in deals]
            await self._connection.execute(
                _SAY, [str(deal.client_id) for deal in deals], [_encode(each) for each in said]
            )
        return len(records)
