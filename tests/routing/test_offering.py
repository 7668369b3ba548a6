"""A lead that is due alone is offered by one statement, or by nothing at all."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from libs.shared.timers import Ahead
from services.routing import handing_over
from services.routing.desk import DESK
from services.routing.offering import look_ahead, offer_alone
from services.routing.reports.explaining import replay
from tests.routing.conftest import NOON, WINDOW, Routing, received

SECOND = timedelta(seconds=1)
_WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = $1"


async def offers_alone(
    routing: Routing, now: datetime = NOON, *, seen: Ahead | None = None
) -> Ahead | None:
    async with routing.database.pool.acquire() as connection:
        return await offer_alone(connection, now, seen or await look_ahead(connection))


async def looks(routing: Routing) -> Ahead:
    async with routing.database.pool.acquire() as connection:
        return await look_ahead(connection)


async def comes_alone(routing: Routing, **told: Any) -> UUID:
    event = received(**told)
    await routing.hears(event)
    return event.lead_id


async def until_it_waits(routing: Routing, pid: int) -> None:
    async with asyncio.timeout(10):
        while not await routing.database.pool.fetchval(_WAITS, pid):
            await asyncio.sleep(0.01)


async def written(routing: Routing) -> tuple[int, int, int, int]:
    """Offers, sittings, turns, and events."""
    row = await routing.database.pool.fetchrow(
        "SELECT (SELECT count(*) FROM offers), (SELECT count(*) FROM sittings),"
        " (SELECT count(*) FROM turns), (SELECT count(*) FROM outbox)"
    )
    assert row is not None
    return row[0], row[1], row[2], row[3]


async def test_one_lead_is_written_as_any_batch_is(routing: Routing) -> None:
    ann = await routing.manager()
    lead = await comes_alone(routing)

    offered = [await offers_alone(routing), await offers_alone(routing)]

    row = await routing.lead(lead)
    assert offered == [Ahead(None), None]
    assert (row["state"], row["manager_id"], row["epoch"]) == ("offered", ann, 1)
    assert (row["due_at"], row["hops"]) == (NOON + WINDOW, 1)
    assert await routing.said(lead) == [("lead.assigned", 1)]
    assert await written(routing) == (1, 1, 1, 1)
    assert await routing.loads_are_right()


async def test_of_two_workers_one_offers_it(routing: Routing) -> None:
    for _ in range(3):
        await routing.manager()
    leads = []
    for _ in range(30):
        leads.append(await comes_alone(routing))
        await asyncio.gather(*(routing.offers() for _ in range(3)))

    assert len(await routing.said()) == len(leads)
    assert sorted((await routing.spread()).values()) == [10, 10, 10]
    assert await routing.loads_are_right()


async def test_nothing_is_written_when_the_desk_has_moved_on(routing: Routing) -> None:
    ann, bob = await routing.manager(), await routing.manager()
    await routing.comes()  # Ann's
    lead = await comes_alone(routing)

    # Somebody else gives Bob a lead, decided before ours and committed while ours is written.
    async with routing.database.pool.acquire() as connection:
        pid, seen = connection.get_server_pid(), await look_ahead(connection)
        async with routing.database.pool.acquire() as other, other.transaction():
            await other.execute(f"WITH desk AS ({DESK.format(where='')}) SELECT FROM desk")
            await other.execute("UPDATE loads SET open_leads = 5 WHERE manager_id = $1", bob)
            ours = asyncio.create_task(offer_alone(connection, NOON, seen))
            await until_it_waits(routing, pid)
        offered = await ours

    assert (offered, (await routing.lead(lead))["state"]) == (None, "waiting")
    assert await written(routing) == (1, 1, 1, 1)
    await routing.database.pool.execute(
        "UPDATE loads SET open_leads = 0 WHERE manager_id = $1", bob
    )
    await routing.offers()
    assert (await routing.lead(lead))["manager_id"] == bob
    assert await routing.spread() == {ann: 1, bob: 1}


async def test_nothing_is_written_when_the_roster_has_changed(routing: Routing) -> None:
    ann = await routing.manager()
    await routing.comes()
    lead = await comes_alone(routing)

    async with routing.database.pool.acquire() as connection:
        pid, seen = connection.get_server_pid(), await look_ahead(connection)
        async with routing.database.pool.acquire() as other, other.transaction():
            await other.execute("UPDATE managers SET is_active = false WHERE manager_id = $1", ann)
            ours = asyncio.create_task(offer_alone(connection, NOON, seen))
            await until_it_waits(routing, pid)
        offered = await ours

    assert (offered, (await routing.lead(lead))["state"]) == (None, "waiting")
    await routing.offers()
    assert (await routing.lead(lead))["state"] == "queued"


async def test_a_lead_that_somebody_has_in_hand_is_left_alone(routing: Routing) -> None:
    ann = await routing.manager()
    lead = await comes_alone(routing)

    async with routing.database.session() as session:
        await handing_over.assign(session, lead, to=ann, reason="VIP", by="boss", now=NOON)
        offered = await offers_alone(routing)

    assert offered is None
    assert await routing.said(lead) == [("lead.assigned", 1)]
    assert await routing.loads_are_right()


async def test_what_is_next_comes_along_and_is_offered_without_a_look(routing: Routing) -> None:
    ann, bob = await routing.manager(), await routing.manager()
    first, second = await comes_alone(routing), await comes_alone(routing, at=NOON + SECOND)

    ahead = await offers_alone(routing, NOON)
    assert ahead is not None
    early = await offers_alone(routing, NOON, seen=ahead)
    last = await offers_alone(routing, NOON + SECOND, seen=ahead)

    assert (ahead.due_at, early, last) == (NOON + SECOND, None, Ahead(None))
    rows = [await routing.lead(first), await routing.lead(second)]
    assert [row["manager_id"] for row in rows] == [ann, bob]
    assert [row["due_at"] for row in rows] == [NOON + WINDOW, NOON + SECOND + WINDOW]
    assert await routing.loads_are_right()


async def test_of_two_that_are_due_neither_is_alone(routing: Routing) -> None:
    await routing.manager()
    for seconds in (0, 1):
        await comes_alone(routing, at=NOON + seconds * SECOND)

    assert await offers_alone(routing, NOON + SECOND) is None
    assert await offers_alone(routing, NOON) is not None


async def test_behind_one_that_came_along_what_is_due_as_well_is_left_to_the_batch(
    routing: Routing,
) -> None:
    await routing.manager()
    for seconds in (0, 1, 2):
        await comes_alone(routing, at=NOON + seconds * SECOND)
    ahead = await offers_alone(routing, NOON)
    assert ahead is not None
    assert len(ahead.rows) == 1

    behind = await offers_alone(routing, NOON + 2 * SECOND, seen=ahead)

    assert behind == Ahead(NOON + 2 * SECOND)
    assert await offers_alone(routing, NOON + 2 * SECOND, seen=behind) is None


async def test_what_came_along_is_not_offered_once_somebody_was_given_it(routing: Routing) -> None:
    """By hand, while the desk is as it was seen: only the lead itself tells."""
    ann, bob = await routing.manager(), await routing.manager(on_shift=False)
    await comes_alone(routing)
    lead = await comes_alone(routing, at=NOON + SECOND)
    ahead = await offers_alone(routing, NOON)
    assert ahead is not None
    async with routing.database.session() as session:
        await handing_over.assign(session, lead, to=bob, reason="VIP", by="boss", now=NOON)
    desk = "UPDATE desk SET version = $1, roster = $2"
    seen = ahead.rows[0]
    await routing.database.pool.execute(desk, seen["version"], seen["roster"])

    assert await offers_alone(routing, NOON + SECOND, seen=ahead) is None

    assert (await routing.lead(lead))["manager_id"] == bob
    assert await routing.said(lead) == [("lead.assigned", 1)]
    assert await routing.spread() == {ann: 1, bob: 1}
    assert await routing.loads_are_right()


async def test_what_came_along_is_decided_anew_once_another_worker_had_the_desk(
    routing: Routing,
) -> None:
    ann, bob = await routing.manager(), await routing.manager()
    await comes_alone(routing)
    lead = await comes_alone(routing, at=NOON + SECOND)
    ahead = await offers_alone(routing, NOON)
    assert ahead is not None
    await routing.database.pool.execute(
        f"WITH desk AS ({DESK.format(where='')})"
        " UPDATE loads SET open_leads = 5 FROM desk WHERE manager_id = $1",
        bob,
    )

    assert await offers_alone(routing, NOON + SECOND, seen=ahead) is None

    await routing.offers(NOON + SECOND)
    assert (await routing.lead(lead))["manager_id"] == bob
    loads = await routing.database.pool.fetch("SELECT * FROM loads")
    assert {row["manager_id"]: row["open_leads"] for row in loads} == {ann: 1, bob: 6}


async def test_what_came_along_and_was_queued_and_drawn_meanwhile_is_seen_anew(
    routing: Routing,
) -> None:
    """It waits at the same epoch again, in a new round: only the desk's version tells."""
    ann, bob = await routing.manager(capacity=1), await routing.manager(capacity=1)
    await comes_alone(routing)
    lead = await comes_alone(routing, at=NOON + SECOND)
    ahead = await offers_alone(routing, NOON)
    assert ahead is not None
    pool = routing.database.pool
    await pool.execute("UPDATE managers SET capacity = 0 WHERE manager_id = $1", bob)
    await routing.offers(NOON + SECOND)  # into the common queue
    assert (await routing.lead(lead))["state"] == "queued"
    await pool.execute("UPDATE managers SET capacity = 1 WHERE manager_id = $1", bob)
    await pool.execute(
        "UPDATE leads SET state = 'waiting', due_at = $2, asked = ARRAY[$3::uuid]"
        " WHERE lead_id = $1",
        *(lead, NOON + SECOND, bob),
    )
    await pool.execute("UPDATE desk SET roster = $1", ahead.rows[0]["roster"])

    assert await offers_alone(routing, NOON + SECOND, seen=ahead) is None

    await routing.offers(NOON + SECOND)
    row = await routing.lead(lead)
    assert (row["state"], await routing.spread()) == ("queued", {ann: 1})


async def test_a_look_says_what_is_due_and_the_time(routing: Routing) -> None:
    assert await looks(routing) == Ahead(None)
    lead = await comes_alone(routing)

    ahead = await looks(routing)

    assert (ahead.due_at, len(ahead.rows), ahead.rows[0]["lead_id"]) == (NOON, 1, lead)
    now: datetime = await routing.database.pool.fetchval("SELECT clock_timestamp()")
    assert ahead.now is not None
    assert timedelta(0) <= now - ahead.now < timedelta(seconds=5)


async def test_whoever_dies_while_writing_leaves_the_lead_waiting(routing: Routing) -> None:
    await routing.manager()
    await routing.comes()
    lead = await comes_alone(routing)

    async with routing.database.pool.acquire() as connection:
        pid, seen = connection.get_server_pid(), await look_ahead(connection)
        async with routing.database.pool.acquire() as other, other.transaction():
            await other.execute("SELECT FROM desk FOR UPDATE")
            ours = asyncio.create_task(offer_alone(connection, NOON, seen))
            await until_it_waits(routing, pid)
            await other.execute("SELECT pg_terminate_backend($1)", pid)
            with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError)):
                await ours

    assert (await routing.lead(lead))["state"] == "waiting"
    await routing.offers()
    assert await routing.said(lead) == [("lead.assigned", 1)]
    assert await routing.loads_are_right()


async def test_two_leads_or_nobody_free_are_left_to_a_sitting(routing: Routing) -> None:
    lead = await comes_alone(routing)

    assert await offers_alone(routing) is None  # nobody is there
    assert (await routing.lead(lead))["state"] == "waiting"
    await routing.manager()
    await comes_alone(routing)
    assert await offers_alone(routing) is None  # two are due

    await routing.offers()
    assert len(await routing.said()) == 2


async def test_alone_or_in_a_sitting_the_same_managers_are_chosen(
    routing: Routing, routing_url: str
) -> None:
    """Singles, bursts, claims and lapses in turn; every record replays, every load is right."""
    managers = [await routing.manager(weight=n + 1) for n in range(4)]
    now, turns = NOON, []
    for burst in (1, 1, 3, 1, 2, 1, 1, 5, 1):
        events = [received(at=now) for _ in range(burst)]
        await routing.hears(*events)
        await routing.offers(now)
        rows = [await routing.lead(event.lead_id) for event in events]
        turns += [managers.index(row["manager_id"]) for row in rows]
        if burst == 1:
            (row,) = rows
            async with routing.database.session() as session:
                await handing_over.claim(
                    session, row["lead_id"], by=row["manager_id"], epoch=row["epoch"], now=now
                )
        now += SECOND
    lapsed = await routing.sweeps(now + WINDOW)

    assert sorted(turns) == [0] * 2 + [1] * 3 + [2] * 5 + [3] * 6
    assert lapsed == 10
    assert await routing.loads_are_right()
    async with routing.database.transaction() as tx:
        done = await replay(tx, NOON - WINDOW, now + 2 * WINDOW)
    assert (done.checked, done.differing) == (9 + 1, [])
