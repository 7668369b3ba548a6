"""What was just committed is sent without being read; once, in time, by whoever holds the shard."""

import asyncio
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence

import asyncpg

from libs.shared import outbox
from libs.shared.database import Database
from libs.shared.events import LeadClaimed
from libs.shared.ids import new_id
from libs.shared.kafka import Outgoing, Publisher
from libs.shared.relay import AHEAD, POLL_SECONDS, Relay
from tests.shared.test_outbox_and_relay import (
    claimed,
    everything_in,
    outbox_is_empty,
    relaying,
    topics,
)

__all__ = ["topics"]

_ROW = f"SELECT {', '.join(outbox.SENT_COLUMNS)} FROM outbox ORDER BY id DESC LIMIT 1"


async def said(database: Database, event: LeadClaimed) -> asyncpg.Record:
    """An event that was committed without anybody having been rung."""
    async with database.pool.acquire() as connection, connection.transaction():
        await outbox.add_all(connection, [event])
    row = await database.pool.fetchrow(_ROW)
    assert row is not None
    return row


async def holding(relay: Relay) -> None:
    """Wait until the relay has its shards and has sent what there was."""
    async with asyncio.timeout(20):
        while len(relay.held) < outbox.SHARDS or not relay.rounds:
            await asyncio.sleep(0.01)


async def test_it_is_sent_without_being_read(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    await said(plumbing, claimed(1))
    async with relaying(plumbing, kafka_address, topics) as relay:
        await holding(relay)
        row = await said(plumbing, claimed(2))
        await plumbing.pool.execute("DELETE FROM outbox")  # there is nothing to be read
        async with asyncio.timeout(20):
            while relay.sent < 2:  # whoever happens to read drops what is ahead: it is read instead
                assert relay.send_ahead([row])
                await asyncio.sleep(0.05)
        records = await everything_in(kafka_address, topics + "leads", 2)

    assert {record.value for record in records} >= {row["data"]}


async def test_it_is_deleted_when_it_is_sent(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    await said(plumbing, claimed(1))
    async with relaying(plumbing, kafka_address, topics) as relay:
        await holding(relay)
        before = AHEAD._value.get()
        assert relay.send_ahead([await said(plumbing, claimed(2))])
        await outbox_is_empty(plumbing)
        await asyncio.sleep(0.1)  # until the relay has heard so, too
        assert relay.sent == 2
        assert AHEAD._value.get() - before == 1


class Halting(Publisher):
    """Waits before it sends until it is let go."""

    def __init__(self, address: str) -> None:
        super().__init__(address, client_id="test")
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.sent: list[bytes | None] = []

    async def send_all(self, records: Sequence[Outgoing]) -> None:
        self.asked.set()
        await self.go.wait()
        await super().send_all(records)
        self.sent += [record.value for record in records]


async def test_what_a_round_has_read_already_is_not_sent_again(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    publisher = Halting(kafka_address)
    row = await said(plumbing, claimed(1))
    async with relaying(plumbing, kafka_address, topics, publisher) as relay:
        await publisher.asked.wait()
        assert relay.send_ahead([row])
        later = await said(plumbing, claimed(2))
        assert relay.send_ahead([later])
        publisher.go.set()
        await outbox_is_empty(plumbing)
        await asyncio.sleep(2 * POLL_SECONDS)

    assert publisher.sent == [row["data"], later["data"]]


class Insatiable(Halting):
    """Is handed another row whenever it has sent one."""

    relay: Relay
    rows: Iterator[asyncpg.Record] = iter(())

    async def send_all(self, records: Sequence[Outgoing]) -> None:
        await super().send_all(records)
        for row in itertools.islice(self.rows, 1):
            assert self.relay.send_ahead([row])


async def test_who_rings_is_read_though_one_after_another_is_sent_ahead(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    await said(plumbing, claimed(1))
    publisher = Insatiable(kafka_address)
    publisher.go.set()
    async with relaying(plumbing, kafka_address, topics, publisher) as relay:
        await holding(relay)
        publisher.relay = relay
        await said(plumbing, claimed(2))
        # Other ids than anybody will draw: what is sent is deleted by its id.
        others = ", ".join(outbox.SENT_COLUMNS).replace(" id,", " id + 1_000_000 + n AS id,")
        rows = await plumbing.pool.fetch(
            f"SELECT {others} FROM outbox CROSS JOIN generate_series(1, 50_000) AS n"
        )
        await plumbing.pool.execute("DELETE FROM outbox")
        publisher.rows = iter(rows)
        relay.send_ahead(rows[:1])

        waited = []
        for epoch in range(3, 13):
            row = await said(plumbing, claimed(epoch))
            began = time.monotonic()
            relay.bell.ring()
            async with asyncio.timeout(10):
                while row["data"] not in publisher.sent[-50:]:
                    await asyncio.sleep(0.001)
            waited.append(time.monotonic() - began)
        lost = await said(plumbing, claimed(99))  # nobody rings
        async with asyncio.timeout(10):
            while lost["data"] not in publisher.sent:
                await asyncio.sleep(0.001)
        assert next(publisher.rows)  # it was never without one

    assert statistics.median(waited) < POLL_SECONDS / 3


async def test_of_a_shard_that_is_not_ours_nothing_is_taken(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    async with relaying(plumbing, kafka_address, topics) as first:
        await said(plumbing, claimed(1))
        await holding(first)
        async with relaying(plumbing, kafka_address, topics) as second:
            await asyncio.sleep(0.3)
            assert not second.send_ahead([await said(plumbing, claimed(2))])
            assert not first.send_ahead([])


_END_THE_SESSION = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'relay' AND datname = current_database()
"""


async def test_with_the_session_goes_what_was_to_be_sent(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    """The shards may be another's by now, who has read and sent it, and what came after it."""
    publisher = Halting(kafka_address)
    publisher.go.set()
    await said(plumbing, claimed(1))
    async with relaying(plumbing, kafka_address, topics, publisher) as relay:
        await holding(relay)
        row = await said(plumbing, claimed(2))
        await plumbing.pool.execute("DELETE FROM outbox")  # by that other one
        await plumbing.pool.execute(_END_THE_SESSION)
        await asyncio.sleep(POLL_SECONDS / 4)
        relay.send_ahead([row])
        later = await said(plumbing, claimed(3))
        await outbox_is_empty(plumbing)
        await asyncio.sleep(2 * POLL_SECONDS)

    assert row["data"] not in publisher.sent
    assert later["data"] in publisher.sent


async def test_what_an_ended_session_did_not_send_is_read(
    plumbing: Database, kafka_address: str, topics: str
) -> None:
    lead = new_id()
    await said(plumbing, claimed(1, lead))
    async with relaying(plumbing, kafka_address, topics) as relay:
        await holding(relay)
        row = await said(plumbing, claimed(2, lead))
        await plumbing.pool.execute(_END_THE_SESSION)
        relay.send_ahead([row])
        await outbox_is_empty(plumbing)
        records = await everything_in(kafka_address, topics + "leads", 2)

    epochs = [LeadClaimed.model_validate_json(record.value or b"").epoch for record in records]
    assert epochs[:2] == [1, 2]
