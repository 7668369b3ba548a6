"""Every event acts once: twice, in disorder, together, behind poison, through an outage."""

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from libs.shared.cloudevents import Envelope, decode_headers
from libs.shared.database import Connection, Database
from libs.shared.dead_letters import replay_lanes
from libs.shared.events import LeadClaimed, LeadReleased
from libs.shared.ids import new_id
from libs.shared.inbox import Inbox, PoisonFlood
from libs.shared.kafka import (
    Record,
)
from libs.shared.leases import LeaseLost, Leases
from libs.shared.subscriptions import Dispatcher, Heard, in_rounds, on
from tests.shared.streams import (
    APPLIED,
    NOON,
    Keeper,
    applied_to,
    claimed,
    keep,
    record_of,
    released,
)


@pytest.fixture
async def database(plumbing: Database) -> Database:
    await plumbing.pool.execute(APPLIED)
    return plumbing


def inbox_with(database: Database, keeper: Keeper, poison_limit: int = 100) -> Inbox:
    dispatcher = Dispatcher([on(LeadClaimed, keeper), on(LeadReleased, keeper)])
    return Inbox(database, dispatcher, poison_limit=poison_limit)


async def states(database: Database) -> list[tuple[str, str]]:
    rows = await database.pool.fetch("SELECT state, key FROM dead_letters ORDER BY id")
    return [(row["state"], row["key"]) for row in rows]


async def test_the_same_events_again_change_nothing(database: Database) -> None:
    lead = new_id()
    records = [record_of(claimed(lead, epoch)) for epoch in (1, 2, 3)]
    inbox = inbox_with(database, keep())

    await inbox.apply(records + records[:2])
    await inbox.apply(records)

    assert await applied_to(database, lead) == [1, 2, 3]


async def test_two_workers_with_the_same_batch_apply_it_once(database: Database) -> None:
    leads = [new_id() for _ in range(50)]
    records = [record_of(claimed(lead, 1)) for lead in leads]

    await asyncio.gather(
        inbox_with(database, keep()).apply(records),
        inbox_with(database, keep()).apply(list(reversed(records))),
    )

    assert await database.pool.fetchval("SELECT count(*) FROM applied") == 50


async def test_a_handler_gets_its_whole_batch_at_once(database: Database) -> None:
    keeper = keep()

    await inbox_with(database, keeper).apply([record_of(claimed(new_id(), 1)) for _ in range(300)])

    assert keeper.batches == [300]


def test_events_are_grouped_by_type_but_a_key_keeps_its_order() -> None:
    ann, bob = new_id(), new_id()
    order = [claimed(ann, 1), released(ann, 1), claimed(bob, 1), claimed(ann, 2), released(bob, 1)]

    rounds = in_rounds([Heard(record_of(event), None, event) for event in order])

    named = [[(h.event.event_name, h.record.key) for h in r if h.event] for r in rounds]
    ann_key, bob_key = str(ann).encode(), str(bob).encode()
    assert named == [
        [("lead.claimed", ann_key), ("lead.claimed", bob_key)],
        [("lead.released", ann_key), ("lead.released", bob_key)],
        [("lead.claimed", ann_key)],
    ]


async def test_a_failed_handler_leaves_nothing_behind(database: Database) -> None:
    class Dies(Keeper):
        async def __call__(self, events: Sequence[Any], tx: Connection) -> None:
            await super().__call__(events, tx)
            raise asyncpg.DeadlockDetectedError("try again")

    lead = new_id()
    records = [record_of(claimed(lead, 1))]

    with pytest.raises(asyncpg.DeadlockDetectedError):
        await inbox_with(database, Dies(lambda event: False)).apply(records)
    assert await applied_to(database, lead) == []

    await inbox_with(database, keep()).apply(records)
    assert await applied_to(database, lead) == [1]


async def test_a_batch_whose_partition_is_another_workers_by_now_leaves_nothing(
    database: Database,
) -> None:
    leads = [new_id(), new_id()]
    records = [record_of(claimed(lead, 1)) for lead in leads]
    at = (records[0].topic, records[0].partition)
    next_offsets = {at: records[-1].offset + 1}
    leases = Leases(database.dsn, group="g", topics=[at[0]])
    await leases.enter({at: 0})
    await database.pool.execute("UPDATE consumer_positions SET worker_id = $1", new_id())

    async with database.pool.acquire() as heir, heir.transaction():
        # Who has lost its partition does not wait for who remembers the same events.
        await heir.executemany("INSERT INTO inbox VALUES ($1)", [(r.id,) for r in _ids(records)])
        async with asyncio.timeout(20):
            with pytest.raises(LeaseLost):
                await inbox_with(database, keep()).apply(records, leases.fence(next_offsets))

    assert await database.pool.fetchval("SELECT count(*) FROM applied") == 0
    await database.pool.execute("DELETE FROM inbox")
    await leases.refresh()
    await database.pool.execute(
        "UPDATE consumer_positions SET worker_id = $1", leases.fence(next_offsets).worker
    )
    await inbox_with(database, keep()).apply(records, leases.fence(next_offsets))
    assert await database.pool.fetchval("SELECT next_offset FROM consumer_positions") == (
        records[-1].offset + 1
    )
    assert [await applied_to(database, lead) for lead in leads] == [[1], [1]]
    await leases._leave()


def _ids(records: Sequence[Record]) -> list[Envelope]:
    return [decode_headers(record.headers) for record in records]


async def test_poison_is_laid_aside_alone_and_its_lane_waits_behind_it(database: Database) -> None:
    cursed, others = new_id(), [new_id() for _ in range(40)]
    keeper = keep(refuses=lambda event: event.key == str(cursed))
    inbox = inbox_with(database, keeper)
    records = [record_of(claimed(lead, 1)) for lead in others[:20]]
    records += [record_of(claimed(cursed, 1)), record_of(claimed(cursed, 2))]
    records += [record_of(claimed(lead, 1)) for lead in others[20:]]

    await inbox.apply(records)
    await inbox.apply([record_of(claimed(cursed, 3)), record_of(claimed(others[0], 2))])

    assert await states(database) == [
        ("poison", str(cursed)),
        ("waiting", str(cursed)),
        ("waiting", str(cursed)),
    ]
    assert await applied_to(database, cursed) == []
    assert await applied_to(database, others[0]) == [1, 2]
    assert await database.pool.fetchval("SELECT count(*) FROM applied") == 41
    mirror = await database.pool.fetchrow("SELECT topic, key, extra FROM outbox")
    assert mirror is not None
    assert (mirror["topic"], mirror["key"]) == ("leads.dead-letters", str(cursed))
    assert mirror["extra"] == {"dead_letter_reason": "ValueError: this lead is cursed"}


async def test_a_replay_goes_on_with_the_whole_lane_in_order(database: Database) -> None:
    cursed = new_id()
    keeper = keep(refuses=lambda event: event.key == str(cursed))
    inbox = inbox_with(database, keeper)
    await inbox.apply([record_of(claimed(cursed, epoch)) for epoch in (1, 2)])
    await inbox.apply([record_of(claimed(cursed, 3))])
    dispatcher = Dispatcher([on(LeadClaimed, keep())])

    async def handle(record: Record, tx: Connection) -> None:
        heard = dispatcher.read(record)
        assert heard is not None
        assert heard.event is not None
        await dispatcher.handle([heard.event], tx)

    async def replay() -> None:
        async with database.transaction() as tx:
            await replay_lanes(tx, NOON, handle)

    await replay()  # nobody asked for it
    assert await applied_to(database, cursed) == []
    await database.pool.execute("UPDATE dead_letters SET state = 'replaying' WHERE id = 1")
    await replay()

    assert await applied_to(database, cursed) == [1, 2, 3]
    assert {state for state, _ in await states(database)} == {"replayed"}
    await inbox.apply([record_of(claimed(cursed, 4))])  # the lane is no longer parked; still cursed
    assert (await states(database))[-1] == ("poison", str(cursed))


@pytest.mark.parametrize(
    "value",
    [b"not json", b"{}", b'{"lead_id": 7}', b"\xff\xfe", b"[1]"],
    ids=["text", "empty", "wrong type", "bytes", "list"],
)
async def test_unreadable_data_is_kept_with_its_reason(database: Database, value: bytes) -> None:
    good = new_id()
    bad = record_of(claimed(new_id(), 1), value=value)

    await inbox_with(database, keep()).apply([bad, record_of(claimed(good, 1))])
    await inbox_with(database, keep()).apply([bad])

    row = await database.pool.fetchrow("SELECT state, data, reason FROM dead_letters")
    assert row is not None
    assert (row["state"], row["data"]) == ("poison", value)
    assert "ValidationError" in row["reason"]
    assert await database.pool.fetchval("SELECT count(*) FROM dead_letters") == 1
    assert await applied_to(database, good) == [1]


async def test_a_record_that_is_no_event_is_kept_once(database: Database) -> None:
    stray = Record("leads", 0, 10**6, b"key", b"hello", [], 0)

    for _ in range(2):
        await inbox_with(database, keep()).apply([stray, record_of(claimed(new_id(), 1))])

    assert await states(database) == [("poison", "key")]
    assert await database.pool.fetchval("SELECT count(*) FROM applied") == 2


async def test_a_huge_record_is_kept_whole_but_mirrored_without_its_data(
    database: Database,
) -> None:
    huge = b"x" * 900_000
    await inbox_with(database, keep()).apply([record_of(claimed(new_id(), 1), value=huge)])

    assert await database.pool.fetchval("SELECT data FROM dead_letters") == huge
    mirror = await database.pool.fetchrow("SELECT data, extra FROM outbox")
    assert mirror is not None
    assert mirror["data"] is None
    assert "ValidationError" in mirror["extra"]["dead_letter_reason"]


async def test_a_flood_of_poison_stops_the_consumer_and_commits_nothing(database: Database) -> None:
    inbox = inbox_with(database, keep(refuses=lambda event: True), poison_limit=5)

    with pytest.raises(PoisonFlood):
        await inbox.apply([record_of(claimed(new_id(), 1)) for _ in range(6)])

    assert await states(database) == []
    assert await database.pool.fetchval("SELECT count(*) FROM inbox") == 0


async def test_unknown_events_unknown_fields_and_tombstones_are_passed_over(
    database: Database,
) -> None:
    lead = new_id()
    event = claimed(lead, 1)
    newer = event.model_dump_json().encode()[:-1] + b', "added_later": {"x": 1}}'
    unknown = record_of(event)
    unknown = Record(
        unknown.topic,
        0,
        5,
        unknown.key,
        unknown.value,
        [(n, b"baza.lead.sang.v1" if n == "ce_type" else v) for n, v in unknown.headers],
        0,
    )
    tombstone = Record("leads", 0, 6, b"k", None, record_of(event).headers, 0)

    await inbox_with(database, keep()).apply([unknown, tombstone, record_of(event, value=newer)])

    assert await applied_to(database, lead) == [1]
    assert await states(database) == []


async def test_what_is_not_for_us_moves_the_position_and_wakes_nobody(database: Database) -> None:
    inbox = Inbox(database, Dispatcher([on(LeadReleased, keep())]))
    lead = new_id()
    records = [record_of(claimed(lead, 1)), record_of(released(lead, 1))]
    at = (records[0].topic, records[0].partition)
    leases = Leases(database.dsn, group="g", topics=[at[0]])
    await leases.enter({at: 0})
    positions, rung = [], []
    with database.wake.listening() as bell:
        while await bell.wait(0.3):  # the ring of having connected
            pass
        for record in records:
            await inbox.apply([record], leases.fence({at: record.offset + 1}))
            rung.append(await bell.wait(0))
            positions.append(
                await database.pool.fetchval("SELECT next_offset FROM consumer_positions")
            )
    await leases._leave()

    assert (positions, rung) == ([record.offset + 1 for record in records], [False, True])
    assert await applied_to(database, lead) == [1]
