"""Rules and teams over HTTP, and what happens to leads when they change."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from libs.shared.events import SegmentChanged
from libs.shared.ids import new_id
from services.routing.choosing.rule_set import Conditions, Rule, RuleSet
from services.routing.common_queue import try_again
from services.routing.policy import MutedPeriod, MutingPolicy
from tests.apps import App, problem
from tests.routing.conftest import NOON, Routing, received
from tests.routing.test_api import hired

GEOGRAPHY: dict[str, Any] = {
    "rules": [
        {"name": "Турция", "conditions": {"domains": [".tr"]}, "team": "istanbul"},
        {
            "name": "Россия",
            "conditions": {"domains": [".ru"]},
            "team": "ekaterinburg",
            "strategy": {"kind": "load"},
            "fallback": ["all"],
        },
    ]
}


def moved(client: UUID, seq: int, segment: str | None) -> SegmentChanged:
    return SegmentChanged(
        client_id=client,
        seq=seq,
        new_segment=segment,
        rule_version=1,
        as_of=NOON.date(),
        reason="purchase",
        occurred_at=NOON,
    )


async def test_rules_are_drafted_and_put_in_force(api: App, routing: Routing) -> None:
    unknown = await api.call("POST", "/v1/rule-sets", {"rule_set": GEOGRAPHY})
    assert problem(unknown) == (422, "team-unknown")
    assert unknown.json()["errors"][0]["pointer"] == "/rules/0/team"

    ivan, mehmet = await routing.manager(), await routing.manager()
    for team, member in (("istanbul", mehmet), ("ekaterinburg", ivan)):
        made = await api.call("PUT", f"/v1/teams/{team}", {"name": team, "members": [str(member)]})
        assert made.json() == {"team": team, "name": team, "members": [str(member)]}
    draft = await api.call("POST", "/v1/rule-sets", {"rule_set": GEOGRAPHY, "note": "по домену"})
    assert (draft.status_code, draft.json()["status"], draft.json()["version"]) == (201, "draft", 2)
    (before,) = await routing.comes(domain="baza.com.tr")
    active = await api.call("POST", "/v1/rule-sets/2/activate", {})
    assert active.json()["status"] == "active"

    turkish = await routing.comes(4, domain="baza.com.tr")
    russian = await routing.comes(4, domain="baza.ru")
    assert {(await routing.lead(lead))["manager_id"] for lead in turkish} == {mehmet}
    assert {(await routing.lead(lead))["manager_id"] for lead in russian} == {ivan}
    story = (await api.call("GET", f"/v1/leads/{russian[0]}")).json()["offers"][0]
    assert (story["rule"], story["team"], story["strategy"]) == ("Россия", "ekaterinburg", "load")
    assert (await routing.lead(before))["state"] == "offered"

    again = await api.call("POST", "/v1/rule-sets/2/activate", {})
    assert problem(again) == (409, "rule-set-not-draft")
    assert (await api.call("GET", "/v1/rule-sets/active")).json()["version"] == 2
    listed = (await api.call("GET", "/v1/rule-sets")).json()["items"]
    assert [(each["version"], each["status"]) for each in listed] == [(2, "active"), (1, "retired")]
    log = (await api.call("GET", "/v1/audit?subject_type=rule_set")).json()["items"]
    assert [entry["action"] for entry in log] == ["rule_set.activated", "rule_set.drafted"]


async def test_hints_tell_of_what_cannot_work(api: App) -> None:
    await api.call("PUT", "/v1/teams/empty", {"name": "Пустая"})
    rules = [
        {"name": "Все", "team": "all"},
        {"name": "Казань", "team": "empty", "conditions": {"cities": ["Казань"]}},
    ]
    drafted = await api.call("POST", "/v1/rule-sets", {"rule_set": {"rules": rules}})
    assert drafted.json()["hints"] == [
        "Правило «Казань» никогда не сработает: всё, что ему подходит, "
        "забирает правило «Все» выше.",
        "В команде «empty» нет ни одного работающего менеджера.",
    ]


async def test_bad_rules_are_refused(api: App) -> None:
    for rule_set in (
        {"rules": [{"name": "a", "team": "Not A Code"}]},
        {"rules": [{"name": "a", "strategy": {"kind": "luck"}}]},
        {"rules": [{"name": "a", "conditions": {"phone_countries": ["Russia"]}}]},
        {"rules": "none"},
    ):
        refused = await api.call("POST", "/v1/rule-sets", {"rule_set": rule_set})
        assert problem(refused) == (422, "request-invalid")
    for path in ("/v1/rule-sets/99", "/v1/rule-sets/-1", f"/v1/rule-sets/{2**40}"):
        assert problem(await api.call("GET", path)) == (404, "rule-set-not-found")
    assert problem(await api.call("GET", "/v1/teams/none")) == (404, "team-not-found")
    everybody = await api.call("PUT", "/v1/teams/all", {"name": "Все"})
    assert problem(everybody) == (422, "team-is-everybody")
    nobody = await api.call("PUT", "/v1/teams/x", {"name": "x", "members": [str(new_id())]})
    assert problem(nobody) == (404, "manager-not-found")
    manager = await api.call("POST", "/v1/rule-sets", {"rule_set": {}}, role="manager")
    assert problem(manager) == (403, "role-missing")


async def test_a_high_segment_goes_to_its_group(routing: Routing) -> None:
    await routing.manager()
    special = await routing.manager()
    await routing.team("vip", special)
    conditions = Conditions(segments=("Лучшие",))
    await routing.rules(RuleSet(rules=(Rule(name="VIP", conditions=conditions, team="vip"),)))
    clients = [new_id() for _ in range(3)]
    await routing.hears(
        *(moved(client, 2, "Лучшие") for client in clients), moved(clients[0], 1, "Новые")
    )
    leads = [received(client_id=client) for client in clients]
    await routing.hears(*leads)
    await routing.offers()
    assert await routing.spread() == {special: 3}


async def test_a_muted_segment_waits_until_its_season_is_over(routing: Routing) -> None:
    await routing.manager()
    poor, fine = new_id(), new_id()
    await routing.hears(moved(poor, 1, "Некачественный"), moved(fine, 1, "Лучшие"))
    end = NOON + timedelta(minutes=25)
    period = MutedPeriod(segments=("Некачественный",), begins_at=NOON, ends_at=end)
    await routing.policy(MutingPolicy(periods=(period,)))
    muted, other = received(client_id=poor), received(client_id=fine)
    await routing.hears(muted, other)
    await routing.offers()

    assert (await routing.lead(muted.lead_id))["state"] == "muted"
    assert (await routing.lead(other.lead_id))["state"] == "offered"
    for minutes in (10, 20):
        at = NOON + timedelta(minutes=minutes)
        assert await routing.fires(try_again, at) == 1
        await routing.offers(at)
        assert (await routing.lead(muted.lead_id))["state"] == "muted"
    assert await routing.fires(try_again, end) == 1
    await routing.offers(end)
    assert (await routing.lead(muted.lead_id))["state"] == "offered"
    assert await routing.said(muted.lead_id) == [("lead.assigned", 1)]


async def test_a_client_who_leaves_the_muted_segment_is_routed_at_once(routing: Routing) -> None:
    await routing.manager()
    client = new_id()
    period = MutedPeriod(segments=("none",), begins_at=NOON, ends_at=NOON + timedelta(days=9))
    await routing.policy(MutingPolicy(periods=(period,)))
    lead = received(client_id=client)
    await routing.hears(lead)
    await routing.offers()
    assert (await routing.lead(lead.lead_id))["state"] == "muted"
    await routing.hears(moved(client, 1, "Лучшие"))
    await routing.offers()
    assert (await routing.lead(lead.lead_id))["state"] == "offered"


async def test_a_change_of_team_holds_from_the_next_lead(api: App, routing: Routing) -> None:
    ann = await routing.manager()
    ben = UUID(str(await hired(api, "Ben")))
    await routing.begin_shift(ben)
    await routing.team("t", ann)
    await routing.rules(RuleSet(rules=(Rule(name="r", team="t"),)))
    (first,) = await routing.comes()
    await api.call("PUT", "/v1/teams/t", {"name": "t", "members": [str(ben)]})
    (second,) = await routing.comes()
    holders = [(await routing.lead(lead))["manager_id"] for lead in (first, second)]
    assert holders == [ann, ben]
