"""The floor of `latency`, a process of its own: fetch, one bare insert each, send, commit.

`python -m tests.benchmarks.raw_loop KAFKA DATABASE IN OUT FETCH_WAIT_MS`. No inbox, no outbox, no
transaction around anything; a crash loses or repeats.
"""

import asyncio
import sys

import asyncpg
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


async def run(kafka: str, database: str, source: str, target: str, fetch_wait_ms: str) -> None:
    connection = await asyncpg.connect(database)
    consumer = AIOKafkaConsumer(
        source,
        bootstrap_servers=kafka,
        group_id=target,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=int(fetch_wait_ms),
    )
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", enable_idempotence=True)
    await producer.start()
    await consumer.start()
    insert = await connection.prepare("INSERT INTO heard (key, data) VALUES ($1, $2)")
    while True:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            for record in records:
                await insert.fetch(record.key.decode(), record.value)
            waiting = [await producer.send(target, r.value, r.key) for r in records]
            await asyncio.gather(*waiting)
        await consumer.commit()


if __name__ == "__main__":
    uvloop.run(run(*sys.argv[1:]))
