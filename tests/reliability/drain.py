"""Waiting until nothing is on its way any more."""

import asyncio
import sys
import time

import asyncpg
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from tests.reliability.field import LEDGER, Field
from tests.reliability.nemesis import APIS
from tests.reliability.stored import in_hand

LIMIT_SECONDS = 180.0
CALM_SECONDS = 1.0
TELL_SECONDS = 10.0
GROUPS = (*APIS, LEDGER)


async def until_drained(field: Field, *, limit: float = LIMIT_SECONDS) -> float:
    """Wait until every outbox is empty and every group is at the end; when that was, Unix seconds.

    Raises:
        TimeoutError: It does not come to rest.
    """
    admin = AdminClient({"bootstrap.servers": field.suite.kafka})
    calm_since: float | None = None
    left: dict[str, int] = {}
    told_at = time.time()
    try:
        async with asyncio.timeout(limit):
            while calm_since is None or time.time() - calm_since < CALM_SECONDS:
                left = await _what_is_left(field, admin)
                calm_since = None if left else calm_since or time.time()
                if left and time.time() - told_at > TELL_SECONDS:
                    told_at = time.time()
                    print(f"           not drained yet: {left}", file=sys.stderr, flush=True)
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise TimeoutError(f"not drained in {limit:.0f} s: {left}") from None
    return calm_since


async def _what_is_left(field: Field, admin: AdminClient) -> dict[str, int]:
    try:
        left = await in_hand(field.database_urls()) | await asyncio.to_thread(lag, admin)
    except (OSError, asyncpg.PostgresError, TimeoutError, KafkaException) as problem:
        return {f"cannot be asked: {type(problem).__name__}": 1}
    return {what: number for what, number in left.items() if number}


def lag(admin: AdminClient) -> dict[str, int]:
    """Records that the groups have not committed yet, by group."""
    behind: dict[str, int] = {}
    for group in GROUPS:
        wish = [ConsumerGroupTopicPartitions(group)]
        committed = admin.list_consumer_group_offsets(wish, request_timeout=10)[group].result()
        places = committed.topic_partitions or []
        newest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        latest = {TopicPartition(p.topic, p.partition): newest for p in places}
        ends = admin.list_offsets(latest, request_timeout=10)
        for place in places:
            end = ends[TopicPartition(place.topic, place.partition)].result().offset
            behind[group] = behind.get(group, 0) + end - max(0, place.offset)
    return behind
