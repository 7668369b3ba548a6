"""From lead.received to lead.assigned at 200 a second, both in Kafka: p99 beside 100 ms.

Routing's worker runs as in production, with fifty managers, nine rules and the record of every
decision. The time is taken here, from before the send until the answer has been fetched.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from libs.shared import kafka
from libs.shared.cloudevents import Envelope, encode_headers
from libs.shared.events import LeadReceived
from libs.shared.ids import new_id
from libs.shared.kafka import Topic
from tests.benchmarks.deals import PARTITIONS
from tests.benchmarks.figures import Figure, p99
from tests.benchmarks.routed_leads import routing_database
from tests.benchmarks.servers import FETCH_WAIT_MS, Servers, service_worker

A_SECOND = 200
EVENTS = 800  # in a round
ROUNDS = 3
LIMIT_MS = 100
PREFIX = "routed."
LEADS = PREFIX + "leads"
_LONGEST_SECONDS = 40.0
_SITES = ("baza.ru", "baza.com.tr", "baza.de")


async def measure(servers: Servers) -> list[Figure]:
    topics = [Topic(LEADS), Topic(PREFIX + "segments")]
    await kafka.ensure_topics(servers.kafka, topics, partitions=PARTITIONS, replication=1)
    url = await routing_database(servers, "bench_routing_latency")
    producer = AIOKafkaProducer(bootstrap_servers=servers.kafka, acks="all")
    answers = AIOKafkaConsumer(
        LEADS, bootstrap_servers=servers.kafka, fetch_max_wait_ms=FETCH_WAIT_MS
    )
    await producer.start()
    await answers.start()
    try:
        async with service_worker("routing", servers, url, prefix=PREFIX):
            rounds = [(LIMIT_MS, await _round(producer, answers)) for _ in range(ROUNDS + 1)]
    finally:
        await answers.stop()
        await producer.stop()
    # The first round warms up.
    return [Figure.of("routing_latency", "ms p99", rounds[1:], bar=1.0, aim=0.5, low_is_good=True)]


async def _round(producer: AIOKafkaProducer, answers: AIOKafkaConsumer) -> float:
    """p99 in milliseconds."""
    sent: dict[bytes, float] = {}
    took: list[float] = []
    async with asyncio.timeout(_LONGEST_SECONDS), asyncio.TaskGroup() as group:
        group.create_task(_hear(answers, sent, took))
        await _send(producer, sent)
    return p99(took) * 1000


async def _send(producer: AIOKafkaProducer, sent: dict[bytes, float]) -> None:
    began = time.perf_counter()
    for number, event in enumerate(_leads()):
        await asyncio.sleep(began + number / A_SECOND - time.perf_counter())
        key = event.key.encode()
        sent[key] = time.perf_counter()
        headers = encode_headers(
            Envelope(event.event_id, "/bench", event.wire_type(), event.occurred_at, event.key)
        )
        await producer.send(LEADS, event.data(), key, headers=headers)


def _leads() -> Sequence[LeadReceived]:
    return [
        LeadReceived(
            lead_id=new_id(),
            client_id=new_id(),
            source="site",
            channel="form",
            is_returning=number % 5 == 0,
            domain=_SITES[number % 3],
            city="Пермь",
            language="ru",
            occurred_at=datetime.now(UTC),
        )
        for number in range(EVENTS)
    ]


async def _hear(answers: AIOKafkaConsumer, sent: dict[bytes, float], took: list[float]) -> None:
    assigned = b"baza.lead.assigned.v1"
    while len(took) < EVENTS:
        batches: dict[Any, list[Any]] = await answers.getmany(timeout_ms=200)
        now = time.perf_counter()
        took += [
            now - sent[record.key]
            for batch in batches.values()
            for record in batch
            if record.key in sent and dict(record.headers)["ce_type"] == assigned
        ]
