"""The only file that talks to Kafka: producers, group members and topics.

A `Publisher` is idempotent and waits for every acknowledgement; after a failure it is thrown away
and made anew, because an idempotent producer that failed once may be stuck for good. A `Subscriber`
is a member of a consumer group whose partitions are taken away only between two transactions.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    TopicAlreadyExistsError,
)
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

log = structlog.get_logger()

BrokerError = KafkaError
HEARTBEAT_MS = 1500
REBALANCE_TIMEOUT_MS = 30_000
REQUEST_TIMEOUT_MS = 40_000  # must exceed the rebalance timeout, or joining never succeeds
METADATA_MAX_AGE_MS = 30_000

Partition = tuple[str, int]


class Record(NamedTuple):
    """One record as it stands in a topic; `value` None is a tombstone."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp_ms: int


class Outgoing(NamedTuple):
    """One record to be sent."""

    topic: str
    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Publisher:
    """An idempotent producer that is replaced when it fails."""

    def __init__(self, bootstrap: str, *, client_id: str) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._producer: AIOKafkaProducer | None = None

    async def send_all(self, records: Sequence[Outgoing]) -> None:
        """Send in order and wait until the broker has all of them.

        Raises:
            BrokerError: At least one was not acknowledged; which ones is unknown. Sending all of
                them again keeps the order of first appearance.
        """
        producer = self._producer or await self._start()
        try:
            waiting = [
                await producer.send_batch(batch, topic, partition=partition)
                for (topic, partition), batches in (await _packed(producer, records)).items()
                for batch in batches
            ]
            results = await asyncio.gather(*waiting, return_exceptions=True)
            failed = next((r for r in results if isinstance(r, BaseException)), None)
            if failed is not None:
                raise failed
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            enable_idempotence=True,
            acks="all",
            linger_ms=0,  # batches form by themselves under load; 5 ms would be 5 ms for everybody
            max_batch_size=256 * 1024,
            max_request_size=8 * 1024 * 1024,
            request_timeout_ms=10_000,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )
        try:
            await producer.start()
        except BaseException:
            with contextlib.suppress(Exception):
                await producer.stop()
            raise
        self._producer = producer
        return producer

    async def close(self) -> None:
        """Let go of the producer; the next `send_all` makes another."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaError, asyncio.CancelledError, TimeoutError):
                async with asyncio.timeout(5):
                    await producer.stop()


async def _packed(
    producer: AIOKafkaProducer, records: Sequence[Outgoing]
) -> dict[Partition, list[BatchBuilder]]:
    """Records as batches of their partitions, in order: four times as fast as one by one."""
    packed: dict[Partition, list[BatchBuilder]] = {}
    counts = {t: len(await producer.partitions_for(t)) for t in {r.topic for r in records}}
    now_ms = int(time.time() * 1000)
    for record in records:
        partition = hash_of_key(record.key) % counts[record.topic]
        batches = packed.setdefault((record.topic, partition), [])
        for _ in range(2):  # the second time into a new batch, where the last one is full
            if batches and batches[-1].append(
                timestamp=now_ms, key=record.key, value=record.value, headers=record.headers
            ):
                break
            batches.append(producer.create_batch())
        else:
            if not batches[-1].append(
                timestamp=now_ms, key=record.key, value=record.value, headers=record.headers
            ):
                raise MessageSizeTooLargeError(f"{record.topic}: a record is larger than a batch")
    return packed


@lru_cache(maxsize=100_000)
def hash_of_key(key: bytes) -> int:
    """The hash by which every Kafka client in Java chooses a key's partition."""
    positive: int = murmur2(key) & 0x7FFFFFFF
    return positive


class Subscriber(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """A member of a consumer group with explicit commits and a revoke barrier.

    `in_hand` is held by the consumer around one transaction and its commit. A revocation waits for
    it, so a partition never moves while its records are being applied. It must not be held across
    `fetch`: during a rebalance a fetch waits for the assignment, which waits for the lock.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        group: str,
        topics: Iterable[str],
        session_timeout_ms: int,
        fetch_wait_ms: int,
    ) -> None:
        self.in_hand = asyncio.Lock()
        self._topics = list(topics)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            client_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=session_timeout_ms,
            heartbeat_interval_ms=min(HEARTBEAT_MS, session_timeout_ms // 4),
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            max_poll_interval_ms=300_000,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            fetch_max_wait_ms=fetch_wait_ms,
            max_partition_fetch_bytes=2 * 1024 * 1024,
        )

    @asynccontextmanager
    async def joined(self) -> AsyncIterator["Subscriber"]:
        """Be a member of the group while the block runs; leave it at once afterwards."""
        self._consumer.subscribe(self._topics, listener=self)
        try:
            async with asyncio.timeout(60):  # a start that hangs must become a dead process
                await self._consumer.start()
            yield self
        finally:
            with contextlib.suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(10):
                    await self._consumer.stop()

    async def fetch(self, *, wait_seconds: float, most: int) -> list[Record]:
        """The next records of all partitions of ours, at most `most`; empty after the wait."""
        try:
            batches: Mapping[Any, Sequence[Any]] = await self._consumer.getmany(
                timeout_ms=int(wait_seconds * 1000), max_records=most
            )
        except KafkaConnectionError:
            await asyncio.sleep(min(wait_seconds, 1.0))
            return []
        return [
            Record(r.topic, r.partition, r.offset, r.key, r.value, r.headers, r.timestamp)
            for records in batches.values()
            for r in records
        ]

    def assigned(self) -> set[Partition]:
        """The partitions that are ours now."""
        return {(p.topic, p.partition) for p in self._consumer.assignment()}

    def pause(self) -> None:
        """Fetch nothing more but stay in the group; call `fetch` on."""
        self._consumer.pause(*self._consumer.assignment())

    def resume(self) -> None:
        """Fetch again."""
        self._consumer.resume(*self._consumer.assignment())

    async def commit(self, next_offsets: Mapping[Partition, int]) -> None:
        """Say where to go on from. A failure is harmless: the inbox knows the repeats."""
        try:
            await self._consumer.commit(
                {
                    TopicPartition(topic, part): offset
                    for (topic, part), offset in next_offsets.items()
                }
            )
        except (CommitFailedError, IllegalStateError) as error:
            log.warning("offset_commit_refused", error=type(error).__name__)
        except KafkaError as error:
            log.warning("offset_commit_failed", error=type(error).__name__)

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Wait for the transaction in hand before the partitions go."""
        try:
            async with asyncio.timeout(REBALANCE_TIMEOUT_MS / 1000 - 2), self.in_hand:
                pass
        except TimeoutError:
            log.error("revoked_with_a_transaction_in_hand")

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Tell which partitions came."""
        log.info("partitions_assigned", count=len(assigned))


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it should be."""

    name: str
    compacted: bool = False


async def ensure_topics(
    bootstrap: str, topics: Sequence[Topic], *, partitions: int, replication: int
) -> None:
    """Create the topics that are missing; existing ones are left as they are.

    Safe from several processes at once. Raises BrokerError when the broker refuses.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=20_000)
    await admin.start()
    try:
        existing = set(await admin.list_topics())
        missing = [topic for topic in topics if topic.name not in existing]
        if not missing:
            return
        response = await admin.create_topics(
            [
                NewTopic(
                    name=topic.name,
                    num_partitions=partitions,
                    replication_factor=replication,
                    topic_configs=_configs(topic, replication),
                )
                for topic in missing
            ]
        )
        for name, code, *detail in response.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                raise KafkaError(f"topic {name} was refused: {code} {detail}")
    finally:
        await admin.close()


def _configs(topic: Topic, replication: int) -> dict[str, str]:
    configs = {"min.insync.replicas": "2" if replication >= 3 else "1"}
    if topic.compacted:
        return configs | {"cleanup.policy": "compact", "min.compaction.lag.ms": "3600000"}
    return configs | {"retention.ms": str(14 * 24 * 3600 * 1000)}


class Reader:
    """Reads whole topics from their beginning, as a subscriber without a group does."""

    def __init__(self, bootstrap: str, topics: Sequence[str]) -> None:
        self._topics = list(topics)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Reader"]:
        """Be connected while the block runs."""
        await self._consumer.start()
        try:
            # What the client has cached knows only topics that were subscribed to.
            cluster = await self._consumer._client.fetch_all_metadata()
            partitions = [
                TopicPartition(topic, number)
                for topic in self._topics
                for number in sorted(cluster.partitions_for_topic(topic) or ())
            ]
            self._consumer.assign(partitions)
            yield self
        finally:
            await self._consumer.stop()

    async def fetch(self, *, wait_seconds: float, most: int | None = None) -> list[Record]:
        """The next records of all partitions; empty after the wait."""
        batches = await self._consumer.getmany(
            timeout_ms=int(wait_seconds * 1000), max_records=most
        )
        return [
            Record(r.topic, r.partition, r.offset, r.key, r.value, r.headers, r.timestamp)
            for records in batches.values()
            for r in records
        ]

    async def at_end(self) -> bool:
        """Whether everything that stands in the topics now has been read."""
        ends = await self._consumer.end_offsets(self._consumer.assignment())
        return all([await self._consumer.position(p) >= end for p, end in ends.items()])
