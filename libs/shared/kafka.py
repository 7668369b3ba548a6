"""The only file that talks to Kafka: producers, group members and topics.

A `Publisher` is idempotent and waits for every acknowledgement; after a failure it is thrown away
and made anew, because an idempotent producer that failed once may be stuck for good. A `Subscriber`
fetches the partitions that its worker holds.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from prometheus_client import Counter

from libs.shared.key_hash import hashes_of_keys

log = structlog.get_logger()

BrokerError = KafkaError
REQUEST_TIMEOUT_MS = 10_000
METADATA_MAX_AGE_MS = 30_000
# What a broker takes, less some room. The batches of a partition go one after another, each when
# the one before is acknowledged by all replicas: the fewer, the sooner a backlog is sent.
MAX_BATCH_BYTES = 960 * 1024

COMMIT_FAILURES = Counter(
    "group_commit_failures_total", "Positions that the group could not be told; harmless to us"
)

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
            max_batch_size=MAX_BATCH_BYTES,
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
    hashes = hashes_of_keys(key for _, key, _, _ in records)
    now_ms = int(time.time() * 1000)
    for topic, key, value, headers in records:
        place = (topic, hashes[key] % counts[topic])
        batches = packed.get(place)
        if batches is None:
            batches = packed[place] = [producer.create_batch()]
        if batches[-1].append(timestamp=now_ms, key=key, value=value, headers=headers) is None:
            batches.append(producer.create_batch())  # that one is full
            if batches[-1].append(timestamp=now_ms, key=key, value=value, headers=headers) is None:
                raise MessageSizeTooLargeError(f"{topic}: a record is larger than a batch")
    return packed


class Subscriber:
    """Fetches records of chosen partitions from chosen offsets.

    Who hears which partition is decided elsewhere (`leases.py`), so this is no member of a group:
    nothing here waits for a coordinator.
    """

    def __init__(self, bootstrap: str, *, topics: Iterable[str], fetch_wait_ms: int) -> None:
        self.topics = list(topics)
        self._is_connected = False
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            fetch_max_wait_ms=fetch_wait_ms,
            max_partition_fetch_bytes=2 * 1024 * 1024,
        )

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Subscriber"]:
        """Be connected while the block runs."""
        try:
            async with asyncio.timeout(60):  # a start that hangs must become a dead process
                await self._consumer.start()
            self._is_connected = True
            yield self
        finally:
            self._is_connected = False
            with contextlib.suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(10):
                    await self._consumer.stop()

    async def partitions(self) -> list[Partition]:
        """Every partition of the topics, as the cluster has them now."""
        cluster = await self._consumer._client.fetch_all_metadata()
        return [
            (topic, number)
            for topic in self.topics
            for number in sorted(cluster.partitions_for_topic(topic) or ())
        ]

    async def beginnings(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The oldest record that is left of each."""
        places = [TopicPartition(topic, number) for topic, number in partitions]
        found = await self._consumer.beginning_offsets(places)
        return {(place.topic, place.partition): offset for place, offset in found.items()}

    async def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The offset that the next record of each partition will get.

        Raises:
            BrokerError: The broker did not say.
        """
        if not self._is_connected:
            raise KafkaConnectionError("not connected yet")
        places = [TopicPartition(topic, number) for topic, number in partitions]
        ends = await self._consumer.end_offsets(places) if places else {}
        return {(place.topic, place.partition): end for place, end in ends.items()}

    def hear(self, positions: Mapping[Partition, int]) -> None:
        """Fetch these partitions from now on, each from the offset given."""
        if not positions:
            self._consumer.unsubscribe()
            return
        places = {TopicPartition(topic, part): n for (topic, part), n in positions.items()}
        self._consumer.assign(list(places))
        for place, offset in places.items():  # nothing is awaited in between, so nothing is fetched
            self._consumer.seek(place, offset)

    async def fetch(
        self, *, wait_seconds: float, most: int, lane: int = 0, lanes: int = 1
    ) -> list[Record]:
        """The next records of the partitions heard, at most `most`; empty after the wait.

        Args:
            lane: Only partitions whose number modulo `lanes` is this one: loops that fetch side by
                side never get the same partition.

        Raises:
            PositionLost: Records that were not applied are gone from the broker.
        """
        places = [p for p in self._consumer.assignment() if p.partition % lanes == lane]
        if not places:
            await asyncio.sleep(wait_seconds)
            return []
        try:
            # The client goes on waiting while other partitions' records come; we must not, because
            # ours may be others by now. Ending the wait loses nothing: it takes nothing out before.
            async with asyncio.timeout(wait_seconds):
                batches: Mapping[Any, Sequence[Any]] = await self._consumer.getmany(
                    *places, timeout_ms=int(wait_seconds * 1000), max_records=most
                )
        except TimeoutError:
            return []
        except KafkaConnectionError:
            await asyncio.sleep(min(wait_seconds, 1.0))
            return []
        except OffsetOutOfRangeError as error:
            raise PositionLost(str(error.args[0] if error.args else error)) from error
        return [
            Record(r.topic, r.partition, r.offset, r.key, r.value, r.headers, r.timestamp)
            for batch in batches.values()
            for r in batch
        ]


class GroupOffsets:
    """Shows how far a service is where Kafka's own tools look for it: as a group's offsets.

    Nothing depends on it, so a failure is only retried. It is a client of its own, which never
    fetches: aiokafka ends a consumer with a group whose partitions change by hand.
    """

    def __init__(self, bootstrap: str, group: str) -> None:
        self._bootstrap = bootstrap
        self._group = group
        self._partitions: set[TopicPartition] = set()
        self._consumer: AIOKafkaConsumer | None = None

    async def tell(self, next_offsets: Mapping[Partition, int]) -> bool:
        """Commit offsets for the group; whether the broker has them."""
        if not next_offsets:
            return True
        told = {TopicPartition(topic, part): n for (topic, part), n in next_offsets.items()}
        try:
            async with asyncio.timeout(15):
                consumer = await self._knowing(set(told))
                await consumer.commit(told)
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            COMMIT_FAILURES.inc()
            log.info("group_not_told", error=type(error).__name__)
            await self.close()
            return False
        except BaseException:
            await self.close()
            raise
        return True

    async def _knowing(self, partitions: set[TopicPartition]) -> AIOKafkaConsumer:
        if self._consumer is not None and partitions <= self._partitions:
            return self._consumer
        await self.close()
        self._partitions |= partitions
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, group_id=self._group, enable_auto_commit=False
        )
        self._consumer.assign(list(self._partitions))
        self._consumer.pause(*self._partitions)
        await self._consumer.start()
        return self._consumer

    async def close(self) -> None:
        """Let go of the connection; the next `tell` makes another."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(5):
                    await consumer.stop()


class PositionLost(RuntimeError):
    """The offset to go on from is not in the topic: records were deleted, or the topic made anew.

    Going on would skip events in silence; see docs/operations.md.
    """


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


def _least_in_sync(replication: int) -> int:
    return 2 if replication >= 3 else 1


def _configs(topic: Topic, replication: int) -> dict[str, str]:
    configs = {"min.insync.replicas": str(_least_in_sync(replication))}
    if topic.compacted:
        return configs | {"cleanup.policy": "compact", "min.compaction.lag.ms": "3600000"}
    return configs | {"retention.ms": str(14 * 24 * 3600 * 1000)}


class Probe:
    """Asks, on a connection of its own, whether topics can be written to and read."""

    def __init__(self, bootstrap: str, topics: Collection[str]) -> None:
        self._bootstrap = bootstrap
        self._topics = topics
        self._client: AIOKafkaClient | None = None

    async def answers(self, *, within_seconds: float) -> bool:
        """Whether every partition has a leader, and in-sync replicas enough to be written to."""
        try:
            async with asyncio.timeout(within_seconds):
                if self._client is None:
                    self._client = AIOKafkaClient(bootstrap_servers=self._bootstrap)
                    await self._client.bootstrap()
                cluster = await self._client.fetch_all_metadata()
        except (KafkaError, OSError, TimeoutError):
            await self.close()
            return False
        found = [cluster._partitions.get(topic, {}).values() for topic in self._topics]
        return all(found) and all(
            partition.leader >= 0 and len(partition.isr) >= _least_in_sync(len(partition.replicas))
            for partitions in found
            for partition in partitions
        )

    async def close(self) -> None:
        """Let go of the connection; the next question makes another."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(KafkaError, OSError):
                await client.close()


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
