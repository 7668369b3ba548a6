"""What is committed is sent: nothing else, nothing twice in a row of its key, nothing lost."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.partitioner import murmur2
from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from libs.shared import context, kafka, outbox
from libs.shared.background import beside
from libs.shared.cloudevents import decode_headers
from libs.shared.database import Database
from libs.shared.events import LeadClaimed, SegmentChanged
from libs.shared.ids import new_id
from libs.shared.kafka import BrokerError, Outgoing, Publisher, Topic
from libs.shared.key_hash import hashes_of_keys
from libs.shared.relay import BATCH, POLL_SECONDS, Relay

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def claimed(epoch: int = 1, lead: UUID | None = None) -> LeadClaimed:
    return LeadClaimed(
        lead_id=lead or new_id(),
        client_id=new_id(),
        manager_id=new_id(),
        epoch=epoch,
        occurred_at=NOON,
    )


@asynccontextmanager
async def relaying(
    database: Database, address: str, prefix: str, publisher: Publisher | None = None
) -> AsyncIterator[Relay]:
    relay = Relay(
        database.dsn,
        source="/routing",
        publisher=publisher or Publisher(address, client_id="test"),
        bell=database.wake.bell(),
        prefix=prefix,
    )
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def everything_in(address: str, topic: str, count: int) -> list[kafka.Record]:
    """The first `count` records of a topic, in the order they came."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=address, auto_offset_reset="earliest", group_id=None
    )
    await consumer.start()
    found: list[kafka.Record] = []
    try:
        async with asyncio.timeout(30):
            while len(found) < count:
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    found += batch
    finally:
        await consumer.stop()
    return found


async def outbox_is_empty(database: Database) -> None:
    async with asyncio.timeout(30):
        while await database.pool.fetchval("SELECT count(*) FROM outbox"):
            await asyncio.sleep(0.02)


@pytest.fixture
async def topics(kafka_address: str, topic_prefix: str) -> str:
    names = [
        Topic(topic_prefix + "leads"),
        Topic(topic_prefix + "segments"),
        Topic(topic_prefix + "segments.current", compacted=True),
    ]
    await kafka.ensure_topics(kafka_address, names, partitions=2, replication=1)
    return topic_prefix


async def test_an_event_travels_with_its_state_and_its_thread(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    event = claimed()
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    with context.bound(correlation_id="order-7", traceparent=traceparent):
        async with plumbing.session() as session:
            await outbox.add(session, event)
    async with relaying(plumbing, kafka_address, topics):
        (record,) = await everything_in(kafka_address, topics + "leads", 1)
        await outbox_is_empty(plumbing)

    envelope = decode_headers(record.headers)
    assert (envelope.id, envelope.type) == (event.event_id, "baza.lead.claimed.v1")
    assert (envelope.correlation_id, envelope.traceparent) == ("order-7", traceparent)
    assert (envelope.time, envelope.key) == (NOON, str(event.lead_id))
    assert record.value is not None
    assert LeadClaimed.model_validate_json(record.value) == event


class Tables(DeclarativeBase):
    """What the test below keeps state in."""


class Aggregate(Tables):
    __tablename__ = "aggregates"

    id: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[int]


async def test_the_aggregate_is_locked_before_its_events_id_is_drawn(plumbing: Database) -> None:
    await plumbing.pool.execute("CREATE TABLE aggregates (id int PRIMARY KEY, epoch int)")
    await plumbing.pool.execute("INSERT INTO aggregates VALUES (1, 0)")

    async with plumbing.session() as session:
        aggregate = await session.get_one(Aggregate, 1)
        aggregate.epoch = 1
        await outbox.add(session, claimed())

        with pytest.raises(asyncpg.LockNotAvailableError):
            await plumbing.pool.execute("SELECT * FROM aggregates FOR UPDATE NOWAIT")


async def test_what_was_rolled_back_is_never_sent(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    kept = claimed()

    with pytest.raises(ZeroDivisionError):
        async with plumbing.session() as session:
            await outbox.add(session, claimed())
            raise ZeroDivisionError
    async with plumbing.transaction() as tx:
        await outbox.add_all(tx, [kept])
    async with relaying(plumbing, kafka_address, topics):
        await outbox_is_empty(plumbing)
        (record,) = await everything_in(kafka_address, topics + "leads", 1)

    assert decode_headers(record.headers).id == kept.event_id


async def test_the_current_segment_stands_in_the_compacted_topic_too(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    event = SegmentChanged(
        client_id=new_id(),
        seq=1,
        new_segment="champions",
        rule_version=1,
        as_of=NOON.date(),
        reason="purchase",
        occurred_at=NOON,
    )

    async with plumbing.transaction() as tx:
        await outbox.add_all(tx, [event])
    async with relaying(plumbing, kafka_address, topics):
        (change,) = await everything_in(kafka_address, topics + "segments", 1)
        (current,) = await everything_in(kafka_address, topics + "segments.current", 1)

    assert change.value == current.value
    assert decode_headers(change.headers).id == decode_headers(current.headers).id


async def test_many_writers_and_two_relays_lose_nothing_and_keep_each_keys_order(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    leads = [new_id() for _ in range(20)]
    async with plumbing.transaction() as tx:
        await tx.execute("CREATE TABLE aggregates (id uuid PRIMARY KEY, epoch int DEFAULT 0)")
        await tx.execute("INSERT INTO aggregates (id) SELECT unnest($1::uuid[])", leads)

    async def write(number: int) -> None:
        for step in range(50):
            lead = leads[(number * 7 + step) % len(leads)]
            async with plumbing.transaction() as tx:
                epoch = await tx.fetchval(
                    "UPDATE aggregates SET epoch = epoch + 1 WHERE id = $1 RETURNING epoch", lead
                )
                await outbox.add_all(tx, [claimed(epoch, lead)])

    async with relaying(plumbing, kafka_address, topics), relaying(plumbing, kafka_address, topics):
        await asyncio.gather(*(write(number) for number in range(8)))
        records = await everything_in(kafka_address, topics + "leads", 400)
        await outbox_is_empty(plumbing)

    by_lead: dict[UUID, list[int]] = {}
    for record in records:
        assert record.value is not None
        event = LeadClaimed.model_validate_json(record.value)
        by_lead.setdefault(event.lead_id, []).append(event.epoch)
    assert sum(len(epochs) for epochs in by_lead.values()) == 400
    assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in by_lead.values())


class DiesAfterSending(Publisher):
    """Sends, and fails before the relay can delete: the crash between the two effects."""

    crashes = 3

    async def send_all(self, records: Sequence[Outgoing]) -> None:
        await super().send_all(records)
        if self.crashes:
            self.crashes -= 1
            raise BrokerError("died after sending")


async def test_a_crash_between_sending_and_deleting_repeats_in_order_and_loses_nothing(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    lead = new_id()
    async with plumbing.transaction() as tx:
        await outbox.add_all(tx, [claimed(epoch, lead) for epoch in range(1, 6)])

    publisher = DiesAfterSending(kafka_address, client_id="test")
    async with relaying(plumbing, kafka_address, topics, publisher):
        await outbox_is_empty(plumbing)
        records = await everything_in(kafka_address, topics + "leads", 20)

    epochs = [LeadClaimed.model_validate_json(r.value or b"").epoch for r in records]
    assert epochs == [1, 2, 3, 4, 5] * 4  # repeats in order; first occurrences are in order
    assert len({decode_headers(r.headers).id for r in records}) == 5


async def test_a_dead_relays_shards_are_taken_over(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    async with relaying(plumbing, kafka_address, topics) as first:
        async with plumbing.transaction() as tx:
            await outbox.add_all(tx, [claimed()])
        await outbox_is_empty(plumbing)
        async with relaying(plumbing, kafka_address, topics) as second:
            await plumbing.pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'relay' AND datname = current_database()"
            )
            async with plumbing.transaction() as tx:
                await outbox.add_all(tx, [claimed() for _ in range(50)])
            await outbox_is_empty(plumbing)

    assert first.sent + second.sent >= 51
    await everything_in(kafka_address, topics + "leads", 51)


async def test_a_relay_tells_whether_it_keeps_up(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    many = 3 * BATCH * outbox.SHARDS
    async with plumbing.transaction() as tx:
        await outbox.add_all(tx, [claimed() for _ in range(many)])
    seen = []
    async with relaying(plumbing, kafka_address, topics) as relay, asyncio.timeout(60):
        while relay.sent < many:
            seen.append(relay.keeps_up.is_set())
            await asyncio.sleep(0.001)
        while not relay.keeps_up.is_set():
            await asyncio.sleep(0.001)
    assert set(seen) == {True, False}


class _WhileAnotherWrites(Publisher):
    """While it sends, a row comes that has the id of one that is sent, in another shard."""

    writes: Callable[[], Awaitable[None]] | None = None

    async def send_all(self, records: Sequence[kafka.Outgoing]) -> None:
        await super().send_all(records)
        if self.writes is not None:
            writes, self.writes = self.writes, None
            await writes()


async def test_a_row_with_the_same_id_in_another_shard_is_not_taken_for_sent(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    """As after a move by logical replication, which does not bring sequences along."""
    publisher = _WhileAnotherWrites(kafka_address, client_id="test")

    async def copy_into_another_shard() -> None:
        await plumbing.pool.execute(
            "INSERT INTO outbox (shard, id, event_id, topic, key, type, time, data)"
            " OVERRIDING SYSTEM VALUE"
            " SELECT (shard + 1) % 8, id, uuidv7(), topic, key, type, time, data FROM outbox"
        )

    publisher.writes = copy_into_another_shard
    async with plumbing.transaction() as tx:
        await outbox.add_all(tx, [claimed()])
    async with relaying(plumbing, kafka_address, topics, publisher) as relay, asyncio.timeout(60):
        while relay.sent < 2:
            await asyncio.sleep(0.01)

    found = await everything_in(kafka_address, topics + "leads", 2)
    assert len({dict(record.headers)["ce_id"] for record in found}) == 2


class _Counting(Relay):
    """Counts how often it looks."""

    looks = 0

    async def send_once(self, connection: asyncpg.Connection) -> int:
        self.looks += 1
        return await super().send_once(connection)


async def test_a_relay_whose_shards_others_hold_rests_and_holds_nobody_up(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    idle = _Counting(
        plumbing.dsn,
        source="/routing",
        publisher=Publisher(kafka_address, client_id="idle"),
        bell=plumbing.wake.bell(),
        prefix=topics,
    )
    async with relaying(plumbing, kafka_address, topics) as relay:
        async with asyncio.timeout(30):
            while len(relay.held) < outbox.SHARDS:
                await asyncio.sleep(0.01)
        async with beside(idle.run(), name="idle"):
            await asyncio.sleep(1.5)
    assert idle.held == []
    assert 0 < idle.looks <= 1.5 / POLL_SECONDS + 3
    assert idle.keeps_up.is_set()


async def test_a_rows_shard_never_depends_on_the_process(plumbing: Database) -> None:
    assert outbox.shard_of("0190f0f0-0000-7000-8000-000000000001") == 7
    async with plumbing.session() as session:
        event = claimed()
        await outbox.add(session, event)
        shard = await session.scalar(text("SELECT shard FROM outbox"))
    assert shard == outbox.shard_of(str(event.lead_id))


def test_a_key_goes_to_the_partition_that_every_kafka_client_would_choose() -> None:
    chance = random.Random(4)
    keys = [chance.randbytes(length) for length in range(60) for _ in range(3)]
    keys += [byte * length for byte in (b"\0", b"\xff") for length in (1, 4, 36, 37)]
    assert hashes_of_keys(keys) == {key: murmur2(key) & 0x7FFFFFFF for key in keys}
    assert hashes_of_keys([]) == {}
