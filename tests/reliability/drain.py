"""Waiting until nothing is on its way any more."""

import asyncio
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
GROUPS = (*APIS, LEDGER)


async def until_drained(field: Field, *, limit: float = LIMIT_SECONDS) -> float:
    """Wait until every outbox is empty and every group is at the end; when that was, Unix seconds.

    Raises:
        TimeoutError: It does not come to rest.
    """
    admin = AdminClient({"bootstrap.servers": field.suite.kafka})
    calm_since: float | None = None
    async with asyncio.timeout(limit):
        while calm_since is None or time.time() - calm_since < CALM_SECONDS:
            calm_since = (calm_since or time.time()) if await _is_calm(field, admin) else None
            await asyncio.sleep(0.2)
    return calm_since


async def _is_calm(field: Field, admin: AdminClient) -> bool:
    try:
        waiting = await in_hand(field.database_urls())
        return waiting == 0 and await asyncio.to_thread(lag, admin) == 0
    except (OSError, asyncpg.PostgresError, TimeoutError, KafkaException):
        return False


def lag(admin: AdminClient) -> int:
    """Records that the groups have not committed yet."""
    behind = 0
    for group in GROUPS:
        wish = [ConsumerGroupTopicPartitions(group)]
        committed = admin.list_consumer_group_offsets(wish, request_timeout=10)[group].result()
        places = committed.topic_partitions or []
        newest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        latest = {TopicPartition(p.topic, p.partition): newest for p in places}
        ends = admin.list_offsets(latest, request_timeout=10)
        for place in places:
            end = ends[TopicPartition(place.topic, place.partition)].result().offset
            behind += end - max(0, place.offset)
    return behind
