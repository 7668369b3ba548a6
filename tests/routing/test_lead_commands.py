"""What people may do with a lead over HTTP, who is told what, and who loses a race."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from libs.shared.ids import new_id
from services.routing.policy import ClaimPolicy
from services.routing.unanswered import alert_unanswered_leads
from tests.apps import App, problem
from tests.routing.conftest import NOON, Routing, holders_at_every_moment
from tests.routing.test_api import offered, working


async def does(api: App, who: UUID, lead: UUID, verb: str, **body: Any) -> Any:
    return await api.call("POST", f"/v1/leads/{lead}/{verb}", body, role="manager", manager_id=who)


async def test_a_lead_becomes_a_deal_and_then_nothing_more(api: App, routing: Routing) -> None:
    lead, ann = await offered(api, routing)
    deal = new_id()

    too_early = await does(api, ann, lead, "convert", epoch=1)
    assert problem(too_early) == (409, "lead-not-claimed")
    await does(api, ann, lead, "claim", epoch=1)
    done = await does(api, ann, lead, "convert", epoch=1, deal_id=str(deal))
    again = await does(api, ann, lead, "convert", epoch=1)
    assert (done.status_code, again.status_code) == (200, 200)
    assert (done.json()["state"], done.json()["deal_id"]) == ("converted", str(deal))

    for verb, body in (
        ("claim", {"epoch": 1}),
        ("release", {"epoch": 1, "reason": "x"}),
        ("decline", {"epoch": 1, "reason": "x"}),
        ("close", {"reason": "spam", "epoch": 1}),
    ):
        refused = await does(api, ann, lead, verb, **body)
        assert problem(refused) == (409, "lead-ended"), verb
        assert refused.json()["manager_id"] == str(ann)
    assigned = await api.call(
        "POST", f"/v1/leads/{lead}/assign", {"manager_id": str(ann), "reason": "x"}
    )
    assert problem(assigned) == (409, "lead-ended")
    assert [name for name, _ in await routing.said(lead)] == [
        "lead.assigned",
        "lead.claimed",
        "lead.converted",
    ]
    assert await routing.loads_are_right()


async def test_an_offer_is_declined_with_a_reason(api: App, routing: Routing) -> None:
    lead, ann = await offered(api, routing)
    ben = await working(api)

    answer = await does(api, ann, lead, "decline", epoch=1, reason="не мой язык")
    assert answer.json()["state"] == "waiting"
    story = (await api.call("GET", f"/v1/leads/{lead}")).json()
    offer = story["offers"][0]
    assert (offer["ended_how"], offer["ended_because"]) == ("declined", "не мой язык")
    stranger = await does(api, ben, lead, "decline", epoch=1, reason="x")
    assert problem(stranger) == (409, "lead-offered-to-another")


async def test_a_claimed_lead_is_not_declined_but_released(api: App, routing: Routing) -> None:
    lead, ann = await offered(api, routing)
    await does(api, ann, lead, "claim", epoch=1)
    refused = await does(api, ann, lead, "decline", epoch=1, reason="x")
    assert problem(refused) == (409, "lead-claimed-already")
    assert (await does(api, ann, lead, "release", epoch=1, reason="x")).status_code == 200


async def test_a_lead_is_passed_on_to_a_colleague_who_claims_it(api: App, routing: Routing) -> None:
    lead, ann = await offered(api, routing)
    ben = await working(api)
    await does(api, ann, lead, "claim", epoch=1)

    passed = await does(api, ann, lead, "transfer", epoch=1, to=str(ben), reason="язык")
    assert (passed.json()["state"], passed.json()["epoch"]) == ("offered", 2)
    assert (await does(api, ben, lead, "claim", epoch=2)).status_code == 200
    late = await does(api, ann, lead, "release", epoch=1, reason="x")
    assert problem(late) == (409, "lead-offered-to-another")
    assert late.json()["manager_id"] == str(ben)
    to_self = await does(api, ben, lead, "transfer", epoch=2, to=str(ben), reason="x")
    assert problem(to_self) == (409, "lead-offered-to-another")
    assert [name for name, _ in await routing.said(lead)] == [
        "lead.assigned",
        "lead.claimed",
        "lead.released",
        "lead.assigned",
        "lead.claimed",
    ]
    assert await routing.loads_are_right()
    assert await holders_at_every_moment(routing) == []


async def test_a_supervisor_takes_over_whatever_anybody_holds(api: App, routing: Routing) -> None:
    lead, ann = await offered(api, routing)
    ben = await working(api)
    body = {"manager_id": str(ben), "reason": "жалоба"}

    taken = await api.call("POST", f"/v1/leads/{lead}/take-over", body)
    again = await api.call("POST", f"/v1/leads/{lead}/take-over", body)
    assert taken.json() == again.json()
    assert (taken.json()["state"], taken.json()["manager_id"]) == ("claimed", str(ben))
    assert problem(await does(api, ann, lead, "claim", epoch=1))[1] == "lead-offered-to-another"
    assert problem(await does(api, ann, lead, "take-over", reason="x")) == (403, "role-missing")
    log = (await api.call("GET", f"/v1/audit?subject_id={lead}")).json()["items"]
    assert [entry["action"] for entry in log] == ["lead.taken_over"]
    assert log[0]["details"]["from"] == str(ann)
    assert await routing.loads_are_right()


@pytest.mark.parametrize("reason", ["spam", "error", "duplicate", "lost"])
async def test_a_lead_is_closed_by_who_holds_it_or_a_supervisor(
    api: App, routing: Routing, reason: str
) -> None:
    lead, ann = await offered(api, routing)
    other = await does(api, new_id(), lead, "close", reason=reason, epoch=1)
    assert problem(other) == (409, "lead-offered-to-another")
    mine = await does(api, ann, lead, "close", reason=reason, epoch=1)
    again = await does(api, ann, lead, "close", reason=reason, epoch=1)
    assert mine.json() == again.json()
    assert (mine.json()["state"], mine.json()["ended_because"]) == ("closed", reason)
    assert await routing.loads_are_right()


async def test_many_ways_out_at_once_and_only_one_happens(api: App, routing: Routing) -> None:
    lead, ann = await offered(api, routing)
    ben = await working(api)
    await does(api, ann, lead, "claim", epoch=1)
    answers = await asyncio.gather(
        does(api, ann, lead, "convert", epoch=1),
        does(api, ann, lead, "release", epoch=1, reason="x"),
        does(api, ann, lead, "close", epoch=1, reason="spam"),
        does(api, ann, lead, "transfer", epoch=1, to=str(ben), reason="x"),
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    assert await routing.loads_are_right()


async def test_nobody_answers_for_three_minutes_and_somebody_is_told_once(
    routing: Routing,
) -> None:
    ann = await routing.manager()
    (lead,) = await routing.comes()
    at = NOON + timedelta(minutes=3)
    assert await routing.fires(alert_unanswered_leads, at - timedelta(seconds=1)) == 0
    assert await routing.fires(alert_unanswered_leads, at) == 1
    assert await routing.fires(alert_unanswered_leads, at) == 0
    assert await routing.said(lead) == [("lead.assigned", 1), ("lead.unanswered", 1)]
    row = await routing.lead(lead)
    assert (row["manager_id"], row["alerted_at"]) == (ann, at)


async def test_a_claimed_lead_alerts_nobody(api: App, routing: Routing) -> None:
    lead, ann = await offered(api, routing)
    await does(api, ann, lead, "claim", epoch=1)
    later = (await routing.lead(lead))["received_at"] + timedelta(days=1)
    assert await routing.fires(alert_unanswered_leads, later) == 0


async def test_both_clocks_run_in_the_policys_hours(routing: Routing) -> None:
    office = {
        "zone": "Europe/Moscow",
        "week": {
            "monday": [{"opens_at": "09:00", "closes_at": "15:10"}],
            "tuesday": [{"opens_at": "09:00", "closes_at": "18:00"}],
        },
    }
    await routing.policy(ClaimPolicy.model_validate({"calendar": office, "alert_minutes": 12}))
    await routing.manager()
    (lead,) = await routing.comes()  # Monday, 15:00 in Moscow: ten minutes are left

    row = await routing.lead(lead)
    morning = NOON.replace(hour=6) + timedelta(days=1)
    assert row["due_at"] == morning + timedelta(minutes=5)
    assert row["alert_at"] == morning + timedelta(minutes=2)
