"""Waiting until nothing is on its way any more."""

import asyncio
import sys
import time
from collections.abc import Mapping

import asyncpg
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from libs.shared.events import TOPICS
from libs.shared.kafka import Partition
from tests.reliability.field import Field
from tests.reliability.stored import in_hand

LIMIT_SECONDS = 180.0
TELL_SECONDS = 10.0
_POSITIONS = """
    SELECT topic, partition, next_offset FROM consumer_positions WHERE group_name = $1
"""


async def until_drained(field: Field, *, limit: float = LIMIT_SECONDS) -> float:
    """Wait until every group is at the end and nothing is left to send; when, Unix seconds.

    Raises:
        TimeoutError: It does not come to rest.
    """
    admin = AdminClient({"bootstrap.servers": field.suite.kafka})
    left: dict[str, int] = {"not asked yet": 1}
    told_at = time.time()
    try:
        async with asyncio.timeout(limit):
            while left := await _what_is_left(field, admin):
                if time.time() - told_at > TELL_SECONDS:
                    told_at = time.time()
                    print(f"           not drained yet: {left}", file=sys.stderr, flush=True)
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise TimeoutError(f"not drained in {limit:.0f} s: {left}") from None
    return time.time()


async def _what_is_left(field: Field, admin: AdminClient) -> dict[str, int]:
    urls = field.database_urls()
    try:
        # In this order: who is at the end has put what follows into the outbox.
        behind = await lag(urls, await asyncio.to_thread(_ends, admin))
        left = behind | await in_hand(urls)
    except (OSError, asyncpg.PostgresError, TimeoutError, KafkaException) as problem:
        return {f"cannot be asked: {type(problem).__name__}": 1}
    return {what: number for what, number in left.items() if number}


async def lag(urls: Mapping[str, str], ends: Mapping[Partition, int]) -> dict[str, int]:
    """Records not applied yet, by service."""
    behind: dict[str, int] = {}
    for service, url in urls.items():
        connection = await asyncpg.connect(url, timeout=5)
        try:
            positions = await connection.fetch(_POSITIONS, service)
        finally:
            await connection.close()
        behind[service] = sum(ends[topic, part] - at for topic, part, at in positions)
    return behind


def _ends(admin: AdminClient) -> dict[Partition, int]:
    """The end of every partition of our topics."""
    topics = admin.list_topics(timeout=10).topics
    places = [TopicPartition(t, p) for t in TOPICS for p in topics[t].partitions]
    newest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    found = admin.list_offsets(dict.fromkeys(places, newest), request_timeout=10)
    return {(p.topic, p.partition): future.result().offset for p, future in found.items()}
