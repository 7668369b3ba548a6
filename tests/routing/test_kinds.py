"""Complaints and talks that a bot hands over get somebody at once, with what was said (R-11)."""

from datetime import timedelta

import pytest

from libs.shared.ids import new_id
from services.routing.choosing.rule_set import Conditions, Rule, RuleSet
from services.routing.policy import MutedPeriod, MutingPolicy
from tests.apps import App
from tests.routing.conftest import NOON, Routing


async def test_a_complaint_goes_by_its_rule_and_tells_what_it_is_about(
    api: App, routing: Routing
) -> None:
    talker, seller = await routing.manager(), await routing.manager()
    await routing.team("care", talker)
    await routing.team("sales", seller)
    care = Rule(name="Жалобы", conditions=Conditions(kinds=("complaint",)), team="care")
    await routing.rules(RuleSet(rules=(care, Rule(name="Остальное", team="sales"))))
    about = new_id()

    (complaint,) = await routing.comes(kind="complaint", interaction_id=about)
    (request,) = await routing.comes()

    told = (await api.call("GET", f"/v1/leads/{complaint}")).json()
    assert (told["manager_id"], told["kind"]) == (str(talker), "complaint")
    assert told["interaction_id"] == str(about)
    other = (await api.call("GET", f"/v1/leads/{request}")).json()
    assert (other["manager_id"], other["kind"], other["interaction_id"]) == (
        str(seller),
        "request",
        None,
    )
    (why,) = (await api.call("GET", f"/v1/leads/{complaint}/explanation")).json()
    assert "вид обращения" in why["words"]


@pytest.mark.parametrize(
    ("kind", "state"), [("request", "muted"), ("handoff", "offered"), ("complaint", "offered")]
)
async def test_who_waits_for_a_person_is_not_held_back_by_a_season(
    routing: Routing, kind: str, state: str
) -> None:
    await routing.manager()
    season = MutedPeriod(segments=("none",), begins_at=NOON, ends_at=NOON + timedelta(days=30))
    await routing.policy(MutingPolicy(periods=(season,)))

    (lead,) = await routing.comes(kind=kind)

    found = await routing.database.pool.fetchval("SELECT state FROM leads WHERE lead_id=$1", lead)
    assert found == state
