"""A few ordinary events are heard in one round trip; all others as ever, and none of them twice."""

from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from libs.shared.arrays import array_text, ids_text
from libs.shared.at_once import ALL_ARE_NEW, Statement
from libs.shared.database import Database
from libs.shared.events import Event, LeadClaimed, LeadReleased
from libs.shared.ids import new_id
from libs.shared.inbox import AT_ONCE, FEW, Inbox
from libs.shared.kafka import Publisher
from libs.shared.leases import LeaseLost, Leases
from libs.shared.outbox import SENT_COLUMNS
from libs.shared.relay import Relay
from libs.shared.subscriptions import Dispatcher, Subscription, on
from tests.shared.streams import APPLIED, Keeper, applied_to, claimed, keep, record_of, released

_KEEP = f"""
    kept AS (
        INSERT INTO applied (event_id, lead_id, epoch, kind)
        SELECT id, lead, epoch, 'at once' FROM unnest($1::text::uuid[], $2::text::uuid[],
            $3::text::int[]) AS told (id, lead, epoch)
        WHERE {ALL_ARE_NEW} AND 1 / (epoch <> 13)::int = 1 RETURNING *
    ), said AS (
        INSERT INTO outbox (shard, event_id, topic, key, type, time)
        SELECT 0, event_id, 'told', lead_id::text, kind, now() FROM kept WHERE epoch = 5
        RETURNING {", ".join(SENT_COLUMNS)}
    )
"""


@pytest.fixture
async def database(plumbing: Database) -> Database:
    await plumbing.pool.execute(APPLIED)
    return plumbing


def kept_at_once(events: Sequence[LeadClaimed]) -> Statement | None:
    """Refuses epoch 13; knows nothing of epoch 99, and less of 77 and 78."""
    if any(event.epoch == 77 for event in events):
        raise OverflowError("date value out of range")
    if any(event.epoch == 99 for event in events):
        return None
    leads = ids_text(event.lead_id for event in events)
    if any(event.epoch == 78 for event in events):
        leads += "\ud800"
    ids = ids_text(event.event_id for event in events)
    epochs = array_text([event.epoch for event in events])
    return Statement(_KEEP, "SELECT * FROM said", (ids, leads, epochs))


def dispatcher_of(keeper: Keeper) -> Dispatcher:
    subscriptions: list[Subscription[Any]] = [
        on(LeadClaimed, keeper, at_once=kept_at_once),
        on(LeadReleased, keeper),
    ]
    return Dispatcher(subscriptions)


def inbox_of(database: Database, keeper: Keeper) -> Inbox:
    return Inbox(database, dispatcher_of(keeper))


async def hows(database: Database) -> list[str]:
    return [row["kind"] for row in await database.pool.fetch("SELECT kind FROM applied")]


async def test_a_few_are_heard_at_once_and_remembered(database: Database) -> None:
    lead, keeper = new_id(), keep()
    records = [record_of(claimed(lead, epoch)) for epoch in (1, 2)]
    inbox = inbox_of(database, keeper)
    counted = AT_ONCE.labels("heard")._value
    before = counted.get()
    with database.wake.listening() as bell:
        while await bell.wait(0.3):  # the ring of having connected
            pass
        await inbox.apply(records)
        rung = await bell.wait(0)

    assert (await hows(database), keeper.batches, rung) == (["at once"] * 2, [], True)
    assert counted.get() - before == 1
    await inbox.apply(records)
    assert await applied_to(database, lead) == [1, 2]


@pytest.mark.parametrize(
    ("events", "refused"),
    [
        (lambda lead: [claimed(lead, 1), claimed(lead, 13)], 1),
        (lambda lead: [claimed(lead, 1), claimed(lead, 99)], 0),
        (lambda lead: [claimed(lead, 1), claimed(lead, 77)], 1),
        (lambda lead: [claimed(lead, 1), claimed(lead, 78)], 1),
        (lambda lead: [claimed(lead, 1), released(lead, 1)], 0),
        (lambda lead: [claimed(lead, epoch) for epoch in range(100, 101 + FEW)], 0),
    ],
    ids=[
        "the statement fails",
        "there is none",
        "it cannot be made",
        "it cannot be sent",
        "two types",
        "many",
    ],
)
async def test_what_cannot_be_heard_at_once_is_heard_as_ever(
    database: Database, events: Any, refused: int
) -> None:
    lead, keeper = new_id(), keep()
    told: list[Event] = events(lead)

    counted = AT_ONCE.labels("refused")._value
    before = counted.get()
    await inbox_of(database, keeper).apply([record_of(event) for event in told])

    assert counted.get() - before == refused
    assert await hows(database) == [event.event_name for event in told]
    assert sum(keeper.batches) == len(told)
    assert await database.pool.fetchval("SELECT count(*) FROM inbox") == len(told)


async def test_known_events_among_them_act_once(database: Database) -> None:
    lead, keeper = new_id(), keep()
    first, second = record_of(claimed(lead, 1)), record_of(claimed(lead, 2))
    inbox = inbox_of(database, keeper)

    await inbox.apply([first])
    await inbox.apply([first, second])
    await inbox.apply([second, second])

    assert await applied_to(database, lead) == [1, 2]
    assert keeper.batches == [1]


async def test_a_lane_with_a_dead_letter_is_kept_in_order(database: Database) -> None:
    cursed = new_id()
    keeper = keep(refuses=lambda event: event.epoch == 13)  # type: ignore[attr-defined]
    inbox = inbox_of(database, keeper)

    await inbox.apply([record_of(claimed(cursed, 13))])
    await inbox.apply([record_of(claimed(cursed, 14))])

    rows = await database.pool.fetch("SELECT state FROM dead_letters ORDER BY id")
    assert [row["state"] for row in rows] == ["poison", "waiting"]
    assert await applied_to(database, cursed) == []


async def test_while_a_dead_letter_is_open_nothing_is_tried_in_vain(database: Database) -> None:
    tried: list[int] = []

    def at_once(events: Sequence[LeadClaimed]) -> Statement | None:
        tried.extend(event.epoch for event in events)
        return kept_at_once(events)

    keeper = keep(refuses=lambda event: event.epoch == 13)  # type: ignore[attr-defined]
    inbox = Inbox(database, Dispatcher([on(LeadClaimed, keeper, at_once=at_once)]))

    for epoch in (1, 13, 2, 3):  # 2 finds the letter that 13 has become
        await inbox.apply([record_of(claimed(new_id(), epoch))])
    await database.pool.execute("UPDATE dead_letters SET state = 'replayed'")
    for epoch in (4, 5):
        await inbox.apply([record_of(claimed(new_id(), epoch))])

    assert tried == [1, 13, 2, 5]
    assert await hows(database) == ["at once", *["lead.claimed"] * 3, "at once"]


async def test_what_is_said_goes_to_the_relay_of_this_process(database: Database) -> None:
    bell = database.wake.bell()
    relay = Relay(database.dsn, source="/", publisher=Publisher("", client_id="test"), bell=bell)
    inbox = Inbox(database, dispatcher_of(keep()), relay=relay)

    async def is_rung() -> bool:
        await inbox.apply([record_of(claimed(new_id(), 5))])
        return await bell.wait(0.1)

    while await bell.wait(0.3):  # the ring of having connected
        pass
    relay.held = [1, 2, 3]
    assert await is_rung()  # it is another's
    assert relay._ahead == []
    relay.held = [0]
    assert not await is_rung()
    rows = await database.pool.fetch(f"SELECT {', '.join(SENT_COLUMNS)} FROM outbox ORDER BY id")
    assert relay._ahead == rows[1:]
    await inbox.apply([record_of(claimed(new_id(), 6))])  # says nothing, but may have made rows due
    assert await bell.wait(0.1)


async def test_who_has_lost_the_partition_leaves_nothing(database: Database) -> None:
    record = record_of(claimed(new_id(), 1))
    at = (record.topic, record.partition)
    leases = Leases(database.dsn, group="g", topics=[at[0]])
    await leases.enter({at: 0})
    await database.pool.execute("UPDATE consumer_positions SET worker_id = $1", new_id())
    inbox, fence = inbox_of(database, keep()), leases.fence({at: record.offset + 1})

    with pytest.raises(LeaseLost):
        await inbox.apply([record], fence)
    assert await hows(database) == []
    assert await database.pool.fetchval("SELECT count(*) FROM inbox") == 0

    await database.pool.execute("UPDATE consumer_positions SET worker_id = $1", fence.worker)
    await inbox.apply([record], fence)
    assert await hows(database) == ["at once"]
    position = await database.pool.fetchval("SELECT next_offset FROM consumer_positions")
    assert position == record.offset + 1
    await leases._leave()


async def test_a_passing_failure_is_told_and_leaves_nothing(database: Database) -> None:
    record = record_of(claimed(new_id(), 1))
    await database.pool.execute(
        "CREATE FUNCTION in_vain() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = 'deadlock_detected'; END $$;"
        " CREATE TRIGGER in_vain BEFORE INSERT ON applied FOR EACH ROW EXECUTE FUNCTION in_vain()"
    )
    keeper = keep()

    with pytest.raises(asyncpg.DeadlockDetectedError):
        await inbox_of(database, keeper).apply([record])

    assert keeper.batches == []
    assert await database.pool.fetchval("SELECT count(*) FROM inbox") == 0
