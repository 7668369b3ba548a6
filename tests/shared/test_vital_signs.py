"""The metrics that answer "is anything stuck" are right while something is stuck."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from prometheus_client import REGISTRY

from libs.shared import kafka, outbox
from libs.shared.background import beside
from libs.shared.clock import Clock
from libs.shared.consumer import Consumer
from libs.shared.database import Connection, Database
from libs.shared.events import LeadClaimed
from libs.shared.health import measure_loop_lag
from libs.shared.ids import new_id
from libs.shared.inbox import Inbox
from libs.shared.kafka import (
    GroupOffsets,
    Outgoing,
    Probe,
    Publisher,
    Subscriber,
    Topic,
)
from libs.shared.lag import LagMeter
from libs.shared.leases import Leases
from libs.shared.outbox import SHARDS
from libs.shared.relay import Relay
from libs.shared.subscriptions import Dispatcher, on
from libs.shared.timers import Timer, TimerLoop, due_column
from libs.shared.vital_signs import VitalSigns
from libs.shared.watchdog import Watchdog
from tests.conftest import free_port
from tests.shared.streams import claimed, partition_of, record_of


def shown(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None, name
    return value


@pytest.fixture
async def leads(kafka_address: str, topic_prefix: str) -> str:
    """A topic of one partition."""
    name = topic_prefix + "leads"
    await kafka.ensure_topics(kafka_address, [Topic(name)], partitions=1, replication=1)
    return name


class Door:
    """A handler that waits until it is let in."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()

    async def __call__(self, _events: Sequence[LeadClaimed], _tx: Connection) -> None:
        await self.is_open.wait()


@dataclass
class Watched:
    signs: VitalSigns
    reasons: list[str]

    async def looks_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            await self.signs.look()
            await asyncio.sleep(0.1)

    async def looks_until_blamed(self) -> None:
        async with asyncio.timeout(30):
            while not self.reasons:
                await self.signs.look()
                await asyncio.sleep(0.1)


@asynccontextmanager
async def watched(
    database: Database,
    broker: str,
    topics: Sequence[str] = (),
    *,
    consumer: Consumer | None = None,
    timers: Sequence[TimerLoop] = (),
) -> AsyncIterator[Watched]:
    """Vital signs of a worker whose relay holds every shard and does nothing."""
    reasons: list[str] = []
    relay = Relay(
        database.dsn,
        source="/test",
        publisher=Publisher(broker, client_id="test"),
        bell=database.wake.bell(),
    )
    relay.held = list(range(SHARDS))
    signs = VitalSigns(
        dsn=database.dsn,
        sessions=database.sessions,
        clock=Clock(sandbox=False),
        watchdog=Watchdog(stuck_seconds=1, blocked_seconds=60, end=reasons.append),
        patience=timedelta(seconds=1),
        relay=relay,
        probe=Probe(broker, topics),
        timers=timers,
        meter=LagMeter(consumer) if consumer else None,
    )
    try:
        yield Watched(signs, reasons)
    finally:
        await signs.close()


async def say_three(database: Database) -> None:
    async with database.session() as session:
        await outbox.add(session, *(claimed(new_id(), 1) for _ in range(3)))


async def test_looking_reads_no_outbox_from_end_to_end(
    plumbing: Database, kafka_address: str, leads: str
) -> None:
    """Until the next VACUUM it may be thousands of pages of what was sent."""
    await say_three(plumbing)
    await plumbing.pool.execute("ANALYZE outbox")

    async with watched(plumbing, kafka_address, [leads]) as worker:
        for _ in range(3):
            await worker.signs.look()
        assert shown("outbox_depth") == 3
    await asyncio.sleep(0.2)  # its session ends, and tells what it did

    seen = await plumbing.pool.fetchval(
        "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'outbox'"
    )
    assert seen == 0


async def test_what_is_not_sent_is_counted_and_grows_older(
    plumbing: Database, kafka_address: str, leads: str
) -> None:
    await say_three(plumbing)

    async with watched(plumbing, kafka_address, [leads]) as worker:
        await worker.signs.look()
        depth, age = shown("outbox_depth"), shown("outbox_oldest_seconds")
        await worker.looks_for(0.3)
        older = shown("outbox_oldest_seconds")
        await plumbing.pool.execute("DELETE FROM outbox")
        await worker.signs.look()

    assert depth == 3
    assert 0 < age < older < 10
    assert (shown("outbox_depth"), shown("outbox_oldest_seconds")) == (0, 0)


async def test_a_relay_that_does_nothing_ends_the_process_unless_the_broker_is_away(
    plumbing: Database, kafka_address: str, leads: str
) -> None:
    await say_three(plumbing)

    async with watched(plumbing, f"127.0.0.1:{free_port()}", [leads]) as without_broker:
        await without_broker.looks_for(2)
    async with watched(plumbing, kafka_address, [leads]) as worker:
        await worker.looks_until_blamed()

    assert without_broker.reasons == []
    assert worker.reasons[0].startswith("relay has had work")
    assert shown("dependency_up", server="broker") == 1


async def test_a_topic_that_cannot_be_written_to_is_an_outage(kafka_address: str) -> None:
    probe = Probe(kafka_address, ["there-is-no-such-topic"])

    assert not await probe.answers(within_seconds=5)
    await probe.close()


def consumer_of(
    database: Database, broker: str, topic: str, handler: Callable[..., object]
) -> Consumer:
    prefix = topic.removesuffix("leads")
    dispatcher = Dispatcher([on(LeadClaimed, handler)], prefix)  # type: ignore[arg-type]  # a callable
    return Consumer(
        Subscriber(broker, topics=[topic], fetch_wait_ms=50),
        Leases(database.dsn, group=prefix + "g", topics=[topic]),
        Inbox(database, dispatcher),
        GroupOffsets(broker, prefix + "g"),
        batch=4,
    )


@asynccontextmanager
async def hearing(consumer: Consumer) -> AsyncIterator[None]:
    async with beside(consumer.run(), name="consumer"), asyncio.timeout(60):
        while not consumer.leases.held:
            await asyncio.sleep(0.02)
        yield


async def send(broker: str, topic: str, count: int) -> None:
    publisher = Publisher(broker, client_id="test")
    records = [record_of(claimed(new_id(), 1)) for _ in range(count)]
    await publisher.send_all([Outgoing(topic, r.key or b"", r.value, r.headers) for r in records])
    await publisher.close()


async def test_lag_grows_while_a_batch_is_stuck_and_goes_when_it_is_through(
    plumbing: Database, kafka_address: str, leads: str
) -> None:
    door = Door()
    consumer = consumer_of(plumbing, kafka_address, leads, door)

    async with (
        hearing(consumer),
        watched(plumbing, kafka_address, [leads], consumer=consumer) as worker,
    ):
        await send(kafka_address, leads, 10)
        async with asyncio.timeout(10):
            while len(consumer.in_hand) < 4:
                await asyncio.sleep(0.02)
        await worker.signs.look()
        stuck = shown("consumer_lag_records", topic=leads)
        age = shown("consumer_lag_seconds", topic=leads)
        await worker.looks_for(0.4)
        older = shown("consumer_lag_seconds", topic=leads)
        door.is_open.set()
        async with asyncio.timeout(10):
            while shown("consumer_lag_records", topic=leads):
                await worker.signs.look()

    assert stuck == 10
    assert 0 < age < age + 0.3 < older < 10
    assert shown("consumer_lag_seconds", topic=leads) == 0
    assert worker.reasons == []


async def test_lag_grows_while_nobody_hears_at_all(
    plumbing: Database, kafka_address: str, leads: str
) -> None:
    consumer = consumer_of(plumbing, kafka_address, leads, Door())
    async with hearing(consumer):
        pass
    silent = consumer_of(plumbing, kafka_address, leads, Door())

    async with (
        silent.subscriber.connected(),
        watched(plumbing, kafka_address, [leads], consumer=silent) as worker,
    ):
        await worker.signs.look()
        await send(kafka_address, leads, 5)
        async with asyncio.timeout(10):
            while shown("consumer_lag_seconds", topic=leads) < 0.5:
                await worker.signs.look()

    assert shown("consumer_lag_records", topic=leads) == 5


async def test_half_of_a_consumer_that_hangs_is_not_excused_by_the_other_half(
    plumbing: Database, kafka_address: str, topic_prefix: str
) -> None:
    topic = topic_prefix + "leads"
    await kafka.ensure_topics(kafka_address, [Topic(topic)], partitions=2, replication=1)
    applied = 0

    async def hang_in_partition_0(events: Sequence[LeadClaimed], _tx: Connection) -> None:
        nonlocal applied
        if any(partition_of(event.key, 2) == 0 for event in events):
            await asyncio.Event().wait()
        applied += len(events)

    consumer = consumer_of(plumbing, kafka_address, topic, hang_in_partition_0)
    async with (
        hearing(consumer),
        watched(plumbing, kafka_address, [topic], consumer=consumer) as worker,
    ):
        async with asyncio.timeout(20):
            while not worker.reasons:
                await send(kafka_address, topic, 4)
                await worker.signs.look()

    assert applied > 4
    assert worker.reasons[0].startswith("consumer_lane_0 has had work")


async def test_partitions_that_go_to_another_worker_are_counted(
    plumbing: Database, kafka_address: str, leads: str
) -> None:
    first, second = (consumer_of(plumbing, kafka_address, leads, Door()) for _ in range(2))
    async with hearing(first):
        gained = shown("consumer_partitions_moved_total", how="gained")
    async with hearing(second):
        gained_again = shown("consumer_partitions_moved_total", how="gained")

    assert gained_again == gained + 1


async def test_a_row_that_is_due_and_not_fired_grows_later(
    plumbing: Database, kafka_address: str, leads: str
) -> None:
    async def fire(_tx: Connection, _now: datetime) -> int:
        return 0

    await plumbing.pool.execute("CREATE TABLE alarms (due_at timestamptz)")
    timer = Timer("alarms", due_column("alarms"), fire)
    loop = TimerLoop(timer, plumbing, Clock(sandbox=False), plumbing.wake.bell())
    async with watched(plumbing, kafka_address, [leads], timers=[loop]) as worker:
        await worker.signs.look()
        nothing_due = shown("timer_overdue_seconds", timer="alarms")
        due_at = datetime.now(UTC) - timedelta(hours=1)  # as after an outage, or a sandbox's leap
        await plumbing.pool.execute("INSERT INTO alarms VALUES ($1)", due_at)
        await worker.signs.look()
        late, blamed_at_once = shown("timer_overdue_seconds", timer="alarms"), list(worker.reasons)
        await worker.looks_until_blamed()

    assert nothing_due == 0
    assert 3600 <= late < shown("timer_overdue_seconds", timer="alarms")
    assert blamed_at_once == []
    assert worker.reasons[0].startswith("timer_alarms has had work")


async def test_an_open_transaction_and_a_dead_letter_are_seen(
    plumbing: Database, kafka_address: str, leads: str
) -> None:
    async with (
        watched(plumbing, kafka_address, [leads]) as worker,
        plumbing.pool.acquire() as connection,
    ):
        await worker.signs.look()
        before = shown("database_oldest_transaction_seconds")
        in_use = shown("database_pool_in_use", pool="asyncpg")
        async with connection.transaction():
            await connection.execute(
                'INSERT INTO dead_letters (event_id, topic, partition, "offset", type, headers,'
                " state, reason, received_at) VALUES (gen_random_uuid(), 't', 0, 0, 'x', '[]',"
                " 'poison', 'r', now())"
            )
            await asyncio.sleep(0.4)  # lets the transaction grow old
            await worker.signs.look()
            during = shown("database_oldest_transaction_seconds")
            uncommitted = shown("dead_letters_open")
        await worker.signs.look()

    assert before == 0
    assert 0.3 < during < 10
    assert in_use >= 1
    assert (uncommitted, shown("dead_letters_open")) == (0, 1)


async def test_a_stall_of_the_loop_is_still_seen_at_the_next_scrape() -> None:
    async with beside(measure_loop_lag(), name="lag"):
        await asyncio.sleep(0.05)
        time.sleep(1.2)  # noqa: ASYNC251 - the stall
        await asyncio.sleep(1.2)

    assert 0.5 < shown("event_loop_lag_seconds") < 5


async def test_a_database_that_is_away_is_told_and_nothing_else_ends(
    plumbing: Database, kafka_address: str, leads: str
) -> None:
    await say_three(plumbing)
    async with watched(plumbing, kafka_address, [leads]) as worker:
        await worker.signs.look()
        was_up = shown("dependency_up", server="database")
        worker.signs.dsn = f"postgresql://a:b@127.0.0.1:{free_port()}/c"
        connection = worker.signs._connection
        assert isinstance(connection, asyncpg.Connection)
        connection.terminate()
        await worker.looks_for(2)

    assert (was_up, shown("dependency_up", server="database")) == (1, 0)
    assert worker.reasons == []
