"""What the chaos run puts into topics by itself: repeats, disorder, poison.

Poison is marked, so that the topics themselves tell afterwards how much of it there is: by a key
that begins with `poison-`, or, for a deal of a real client, by a currency that nobody has a rate
of.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from libs.shared.cloudevents import Envelope, encode_headers
from libs.shared.events import DealClosed, Event, InteractionPlanned, LeadReceived
from libs.shared.ids import new_id
from tests.contracts.write import heard
from tests.reliability.field import LEDGER

POISON_KEY = "poison-"
NO_RATE = "XTS"  # ISO 4217: reserved for testing
TAIL = 150  # newest records of a partition that may be sent again
RESENT_TOPICS = (
    "clients",
    "deals",
    "interactions",
    "leads",
    "messages",
    "segments",
    "touches",
)


def _of_type(kind: type[Event]) -> tuple[str, ...]:
    return (*sorted({service for service, event in heard() if event is kind}), LEDGER)


def _of_topic(topic: str) -> tuple[str, ...]:
    return (*sorted({service for service, event in heard() if event.topic == topic}), LEDGER)


# Who must lay which poison aside: the subscribers of the type, or of the topic if it has none.
BROKEN_JSON: Mapping[type[Event], tuple[str, ...]] = {
    kind: _of_type(kind) for kind in (DealClosed, LeadReceived, InteractionPlanned)
}
NOT_AN_EVENT: Mapping[str, tuple[str, ...]] = {
    topic: _of_topic(topic) for topic in ("deals", "leads", "clients")
}
UNKNOWN_CURRENCY = ("scoring",)


@asynccontextmanager
async def _producer(kafka: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True, acks="all")
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def send_again(kafka: str, chance: random.Random, *, shuffled: bool) -> int:
    """Send the newest records of a topic once more, as a relay does after a crash; how many."""
    topic = chance.choice(RESENT_TOPICS)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    await consumer.start()
    try:
        await consumer._client.force_metadata_update()
        cluster = await consumer._client.fetch_all_metadata()
        parts = [TopicPartition(topic, p) for p in cluster.partitions_for_topic(topic) or ()]
        consumer.assign(parts)
        ends = await consumer.end_offsets(parts)
        for part in parts:
            consumer.seek(part, max(0, ends[part] - TAIL))
        found = await _read_to(consumer, ends)
    finally:
        await consumer.stop()
    records = [record for record in found if not is_poison(record.key, record.value)]
    if shuffled:
        chance.shuffle(records)
    async with _producer(kafka) as producer:
        for record in records:
            await producer.send(
                topic,
                record.value,
                record.key,
                partition=record.partition,
                headers=list(record.headers),
            )
    return len(records)


async def _read_to(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> list[Any]:
    """Everything from the consumer's positions to these ends."""
    records: list[Any] = []
    async with asyncio.timeout(10):
        while any([await consumer.position(part) < end for part, end in ends.items()]):
            batches = await consumer.getmany(timeout_ms=200)
            records += [record for batch in batches.values() for record in batch]
    return records


def is_poison(key: bytes | None, value: bytes | None) -> bool:
    """Whether a record was made here to be refused."""
    return (key or b"").startswith(POISON_KEY.encode()) or NO_RATE.encode() in (value or b"")


async def send_poison(kafka: str, chance: random.Random, clients: Sequence[str]) -> int:
    """Send one poison of each kind; how many."""
    topic = chance.choice(list(NOT_AN_EVENT))
    broken = chance.choice(list(BROKEN_JSON))
    key, other = (f"{POISON_KEY}{new_id()}" for _ in range(2))
    deal = _deal_without_rate(UUID(chance.choice(clients)))
    async with _producer(kafka) as producer:
        await producer.send_and_wait(topic, b"hello", key.encode(), headers=[("x", b"y")])
        await producer.send_and_wait(
            broken.topic,
            b'{"half": ',
            other.encode(),
            headers=_headers(broken.wire_type(), other),
        )
        await producer.send_and_wait(
            DealClosed.topic,
            deal.model_dump_json().encode(),
            deal.key.encode(),
            headers=_headers(deal.wire_type(), deal.key),
        )
    return 3


def _deal_without_rate(client: UUID) -> DealClosed:
    at = datetime.fromisoformat("2026-02-01T12:00:00+00:00")
    return DealClosed(
        deal_id=new_id(),
        client_id=client,
        closed_at=at,
        amount_minor=777_00,
        currency=NO_RATE,
        occurred_at=at.replace(month=3),
    )


def _headers(type_: str, key: str) -> list[tuple[str, bytes]]:
    at = datetime.fromisoformat("2026-03-02T06:00:00+00:00")
    return list(
        encode_headers(
            Envelope(
                id=new_id(),
                source="/chaos",
                type=type_,
                time=at,
                key=key,
                correlation_id=None,
                causation_id=None,
                traceparent=None,
            )
        )
    )
