"""How much has been said so far, by the ends of the topics."""

import asyncio
import contextlib
import time

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from libs.shared.events import TOPICS
from libs.shared.kafka import Partition

REPEATED = (
    1.15  # records for each event: repeats, poison and marks of transactions stand there, too
)


def ends(admin: AdminClient) -> dict[Partition, int]:
    """The end of every partition of our topics."""
    topics = admin.list_topics(timeout=10).topics
    places = [TopicPartition(t, p) for t in TOPICS for p in topics[t].partitions]
    newest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    found = admin.list_offsets(dict.fromkeys(places, newest), request_timeout=10)
    return {(p.topic, p.partition): future.result().offset for p, future in found.items()}


async def until_said(kafka: str, events: int, *, limit: float) -> None:
    """Wait until about so many events have been said, at most so many seconds."""
    admin = AdminClient({"bootstrap.servers": kafka})
    give_up_at = time.monotonic() + limit
    while time.monotonic() < give_up_at:
        with contextlib.suppress(KafkaException):
            if sum((await asyncio.to_thread(ends, admin)).values()) >= events * REPEATED:
                return
        await asyncio.sleep(0.5)
