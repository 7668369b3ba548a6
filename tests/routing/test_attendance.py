"""Coming and going: who is not there gets nothing, and what they hold unclaimed moves at once."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from libs.shared.ids import new_id
from services.routing import handing_over
from services.routing.common_queue import try_again
from services.routing.policy import ClaimPolicy, PresencePolicy
from tests.apps import App, problem
from tests.routing.conftest import NOON, WINDOW, Routing, received
from tests.routing.test_api import hired, offered, working

MINUTE = timedelta(minutes=1)


async def ended(routing: Routing, lead: UUID) -> list[str | None]:
    rows = await routing.database.pool.fetch(
        "SELECT ended_how FROM offers WHERE lead_id = $1 ORDER BY epoch", lead
    )
    return [row["ended_how"] for row in rows]


async def test_what_somebody_holds_unclaimed_moves_when_their_shift_ends(routing: Routing) -> None:
    ann = await routing.manager(on_shift=False)
    await routing.database.pool.execute(
        "INSERT INTO shifts VALUES ($1, $2, $3, $4)", new_id(), ann, NOON - WINDOW, NOON + MINUTE
    )
    await routing.attends(NOON - MINUTE)
    await routing.database.pool.execute("UPDATE managers SET due_at = $1", NOON - MINUTE)
    await routing.attends(NOON - MINUTE)
    kept, moved = await routing.comes(2)
    async with routing.database.session() as session:
        await handing_over.claim(session, kept, by=ann, epoch=1, now=NOON)
    ben = await routing.manager()

    assert await routing.attends(NOON + MINUTE - timedelta(seconds=1)) == 0
    assert await routing.attends(NOON + MINUTE) == 1
    await routing.offers(NOON + MINUTE)

    assert (await routing.lead(kept))["manager_id"] == ann
    assert (await routing.lead(moved))["manager_id"] == ben
    assert [name for name, _ in await routing.said(moved)] == [
        "lead.assigned",
        "lead.released",
        "lead.assigned",
    ]
    assert await ended(routing, moved) == ["withdrawn", None]
    assert await routing.loads_are_right()


async def test_the_policy_may_let_a_pause_keep_its_leads(api: App, routing: Routing) -> None:
    await routing.policy(PresencePolicy(moves_unclaimed=("sick",)))
    lead, manager = await offered(api, routing)
    mine: dict[str, Any] = {"role": "manager", "manager_id": manager}

    paused = await api.call("POST", f"/v1/managers/{manager}/pause", {}, **mine)
    assert (paused.json()["presence"], paused.json()["is_on_shift"]) == ("paused", False)
    assert (await routing.lead(lead))["manager_id"] == manager
    (second,) = await routing.comes(at=datetime.now(UTC))
    assert (await routing.lead(second))["state"] == "queued"

    sick = await api.call("POST", f"/v1/managers/{manager}/sick-today", {}, **mine)
    assert (sick.status_code, sick.json()["is_sick"]) == (200, True)
    assert (await routing.lead(lead))["state"] == "waiting"
    back = await api.call("POST", f"/v1/managers/{manager}/resume", {}, **mine)
    assert back.json()["presence"] == "sick"


async def test_a_pause_ends_by_itself(api: App, routing: Routing) -> None:
    manager = await working(api)
    seen = (await api.call("GET", f"/v1/managers/{manager}")).json()
    assert seen["presence"] == "here"
    now = await routing.database.pool.fetchval("SELECT now()")
    until = now + timedelta(minutes=10)
    answer = await api.call(
        "POST",
        f"/v1/managers/{manager}/pause",
        {"until": until.isoformat()},
        role="manager",
        manager_id=manager,
    )
    assert answer.json()["presence"] == "paused"
    assert await routing.attends(until - MINUTE) == 0
    assert await routing.attends(until) == 1
    assert (await api.call("GET", f"/v1/managers/{manager}")).json()["presence"] == "here"

    past = await api.call(
        "POST",
        f"/v1/managers/{manager}/pause",
        {"until": "2020-01-01T00:00:00Z"},
        role="manager",
        manager_id=manager,
    )
    assert problem(past) == (422, "pause-impossible")


async def test_without_a_sign_of_life_nobody_is_there_where_the_policy_wants_one(
    routing: Routing,
) -> None:
    await routing.policy(PresencePolicy(sign_of_life_minutes=2))
    await routing.manager()
    seen = await routing.manager(seen_at=NOON - MINUTE)
    leads = await routing.comes(3)
    assert {(await routing.lead(lead))["manager_id"] for lead in leads} == {seen}

    await routing.database.pool.execute("UPDATE managers SET due_at = $1", NOON)
    await routing.attends(NOON)
    assert await routing.attends(NOON + MINUTE) == 1  # the sign is two minutes old
    await routing.offers(NOON + MINUTE)
    assert {(await routing.lead(lead))["state"] for lead in leads} == {"queued"}


async def test_an_absence_begins_and_ends_by_itself(api: App, routing: Routing) -> None:
    manager = await working(api)
    now = await routing.database.pool.fetchval("SELECT now()")
    body = {
        "starts_at": (now + timedelta(hours=1)).isoformat(),
        "ends_at": (now + timedelta(hours=3)).isoformat(),
        "note": "врач",
    }
    made = await api.call("POST", f"/v1/managers/{manager}/absences", body)
    assert made.status_code == 201, made.text

    await routing.attends(now + timedelta(hours=1))
    (lead,) = await routing.comes(at=now + timedelta(hours=1))
    assert (await routing.lead(lead))["state"] == "queued"
    await routing.attends(now + timedelta(hours=3))
    await routing.offers(now + timedelta(hours=3))
    assert (await routing.lead(lead))["manager_id"] == manager

    wrong = {"starts_at": body["ends_at"], "ends_at": body["starts_at"]}
    refused = await api.call("POST", f"/v1/managers/{manager}/absences", wrong)
    assert problem(refused) == (422, "absence-impossible")
    listed = (await api.call("GET", f"/v1/managers/{manager}/absences")).json()
    assert [each["note"] for each in listed] == ["врач"]
    path = f"/v1/managers/{manager}/absences/{listed[0]['id']}"
    assert (await api.call("DELETE", path)).status_code == 204
    assert problem(await api.call("DELETE", path)) == (404, "absence-not-found")


async def test_who_was_away_comes_first_once_and_not_for_all_they_missed(routing: Routing) -> None:
    ann, ben, eve = [await routing.manager() for _ in range(3)]
    pool = routing.database.pool
    await routing.comes(3)
    await pool.execute(
        "UPDATE managers SET paused_at = $2, due_at = $2 WHERE manager_id = $1", eve, NOON
    )
    await routing.attends(NOON)
    before = await routing.spread()
    await routing.comes(20)
    await pool.execute(
        "UPDATE managers SET paused_at = NULL, due_at = $2 WHERE manager_id = $1", eve, NOON
    )
    await routing.attends(NOON)
    middle = await routing.spread()
    (first,) = await routing.comes()
    await routing.comes(8)
    after = await routing.spread()

    assert before[eve] == middle[eve]
    assert (await routing.lead(first))["manager_id"] == eve
    got = Counter({who: after[who] - middle[who] for who in (ann, ben, eve)})
    assert max(got.values()) - min(got.values()) <= 1


async def test_limits_slide(routing: Routing) -> None:
    limited = await routing.manager(hourly_limit=5)
    first = await routing.comes(5)
    assert {(await routing.lead(lead))["manager_id"] for lead in first} == {limited}
    for minutes, state in ((1, "queued"), (59, "queued"), (60, "offered")):
        at = NOON + timedelta(minutes=minutes)
        (lead,) = await routing.comes(at=at)
        assert (await routing.lead(lead))["state"] == state, minutes


async def test_45_a_month_are_2_a_day(routing: Routing) -> None:
    await routing.manager(monthly_limit=45)
    leads = await routing.comes(3)
    assert [(await routing.lead(lead))["state"] for lead in leads].count("offered") == 2
    (tomorrow,) = await routing.comes(at=NOON + timedelta(days=1))
    assert (await routing.lead(tomorrow))["state"] == "offered"


async def test_converted_and_closed_leads_are_not_load(routing: Routing) -> None:
    ann = await routing.manager(capacity=2)
    one, two, three, four = await routing.comes(4)
    assert [(await routing.lead(lead))["state"] for lead in (one, two, three, four)] == [
        *("offered", "offered", "queued", "queued")
    ]
    async with routing.database.session() as session:
        await handing_over.claim(session, one, by=ann, epoch=1, now=NOON)
        await handing_over.convert(session, one, by=ann, epoch=1, deal_id=None, now=NOON)
    await routing.offers()
    assert (await routing.lead(three))["manager_id"] == ann  # the oldest of the queue
    assert (await routing.lead(four))["state"] == "queued"
    async with routing.database.session() as session:
        await handing_over.close(session, two, by=None, epoch=None, reason="spam", now=NOON)
    await routing.offers()
    assert (await routing.lead(four))["manager_id"] == ann
    assert await routing.loads_are_right()


async def test_one_manager_alone_is_no_dead_end(routing: Routing) -> None:
    ann = await routing.manager()
    (lead,) = await routing.comes()
    await routing.sweeps(NOON + WINDOW)
    assert (await routing.lead(lead))["state"] == "queued"

    later = NOON + WINDOW + timedelta(minutes=ClaimPolicy().queue_again_minutes)
    assert await routing.fires(try_again, later - MINUTE) == 0
    assert await routing.fires(try_again, later) == 1
    await routing.offers(later)
    assert ((await routing.lead(lead))["manager_id"], (await routing.lead(lead))["epoch"]) == (
        ann,
        2,
    )


async def test_the_queue_that_finds_nobody_again_is_no_news(routing: Routing) -> None:
    (lead,) = await routing.comes()
    for times in range(1, 4):
        at = NOON + timedelta(minutes=30 * times)
        assert await routing.fires(try_again, at) == 1
        await routing.offers(at)
    assert await routing.said(lead) == [("lead.escalated", 0)]


async def test_the_queue_drains_in_the_morning_oldest_first(routing: Routing) -> None:
    events = [received(at=NOON - timedelta(minutes=n)) for n in range(5)]
    await routing.hears(*events)
    await routing.offers()
    ann = await routing.manager(capacity=3)
    await routing.database.pool.execute("UPDATE managers SET due_at = $1", NOON)
    await routing.attends(NOON)
    await routing.offers()

    oldest_first = [(await routing.lead(event.lead_id))["manager_id"] for event in events[::-1]]
    assert oldest_first == [ann, ann, ann, None, None]


async def test_everything_of_somebody_who_leaves_goes_to_others(api: App, routing: Routing) -> None:
    ann = await routing.manager()
    leads = await routing.comes(5)
    async with routing.database.session() as session:
        await handing_over.claim(session, leads[0], by=ann, epoch=1, now=NOON)
    ben, eve = UUID(str(await hired(api, "Ben"))), UUID(str(await hired(api, "Eve")))
    path = f"/v1/managers/{ann}/hand-over"
    done = await api.call("POST", path, {"to": [str(ben), str(eve)], "reason": "увольнение"})
    assert done.json() == {"leads": 5}
    assert await routing.spread() == Counter({ben: 3, eve: 2})
    again = await api.call("POST", path, {"reason": "увольнение"})
    assert again.json() == {"leads": 0}
    by_rules = await api.call("POST", f"/v1/managers/{ben}/hand-over", {"reason": "отпуск"})
    assert by_rules.json() == {"leads": 3}
    await routing.offers(datetime.now(UTC) + MINUTE)
    assert (await routing.spread())[ann] + (await routing.spread())[eve] == 5
    assert await routing.loads_are_right()
    to_self = await api.call("POST", path, {"to": [str(ann)], "reason": "x"})
    assert problem(to_self) == (409, "manager-inactive")


async def test_two_who_give_leads_back_at_once_keep_the_loads_right(routing: Routing) -> None:
    managers = [await routing.manager() for _ in range(4)]
    leads = await routing.comes(40)
    held = {lead: (await routing.lead(lead))["manager_id"] for lead in leads}

    async def give_back(lead: UUID) -> None:
        async with routing.database.session() as session:
            await handing_over.release(
                session, lead, by=held[lead], epoch=1, reason="занят", now=NOON
            )

    await asyncio.gather(*map(give_back, leads), routing.offers(), routing.offers())
    await routing.offers(NOON + MINUTE)
    assert sum((await routing.spread()).values()) == 40
    assert set(await routing.spread()) == set(managers)
    assert await routing.loads_are_right()


@pytest.mark.parametrize("verb", ["pause", "resume", "heartbeat", "sick-today"])
async def test_nobody_does_it_for_another(api: App, verb: str) -> None:
    manager = await hired(api)
    answer = await api.call(
        "POST", f"/v1/managers/{manager}/{verb}", {}, role="manager", manager_id=new_id()
    )
    assert problem(answer) == (403, "not-yourself")


async def test_a_queue_tried_again_in_vain_leaves_no_record(routing: Routing) -> None:
    await routing.comes(3)
    for times in range(1, 5):
        at = NOON + timedelta(minutes=30 * times)
        assert await routing.fires(try_again, at) == 3
        await routing.offers(at)
    pool = routing.database.pool
    assert await pool.fetchval("SELECT count(*) FROM sittings") == 1
    assert await pool.fetchval("SELECT count(*) FROM left_waiting") == 3
    assert len(await routing.said()) == 3
