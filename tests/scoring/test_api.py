"""Scores, rule sets and rescorings over HTTP."""

from datetime import UTC, datetime
from typing import Any

import pytest

from libs.shared.ids import new_id
from services.scoring.presets import DEFAULT_RULE_SET, PRESETS
from tests.apps import App, problem
from tests.scoring.conftest import Scoring, closed


def rules(**changes: Any) -> dict[str, Any]:
    return DEFAULT_RULE_SET.model_dump(mode="json") | changes


async def test_a_score_shows_figures_ratings_and_segment(api: App, scoring: Scoring) -> None:
    client = new_id()
    now = datetime.now(UTC)
    await scoring.hears(closed(client, ago=40, money=700_000, at=now))

    score = (await api.call("GET", f"/v1/clients/{client}/score", role="manager")).json()
    history = (await api.call("GET", f"/v1/clients/{client}/segments", role="manager")).json()

    assert (score["recency_days"], score["frequency"], score["monetary_minor"]) == (40, 1, 700_000)
    assert (score["segment"], score["segment_label"]) == ("new_customers", "Новые")
    assert [move["seq"] for move in history["items"]] == [1]


async def test_a_client_who_never_bought_has_no_score(api: App) -> None:
    answer = await api.call("GET", f"/v1/clients/{new_id()}/score")
    assert problem(answer) == (404, "client-not-scored")


async def test_the_table_adds_up(api: App, scoring: Scoring) -> None:
    now = datetime.now(UTC)
    await scoring.hears(
        *(
            closed(new_id(), ago=ago, money=money, at=now)
            for ago, money in ((1, 100), (40, 9_000_000), (300, 300_000), (900, 5))
        )
    )

    table = (await api.call("GET", "/v1/segments", role="analyst")).json()

    assert (table["clients"], table["purchases"], table["currency"]) == (4, 4, "RUB")
    assert sum(line["clients"] for line in table["segments"]) == 4
    assert sum(line["money_share"] for line in table["segments"]) == pytest.approx(1)
    assert len(table["segments"]) == 11


async def test_presets_are_listed_and_drafted_by_name(api: App) -> None:
    listed = (await api.call("GET", "/v1/rule-set-presets", role="analyst")).json()
    assert [preset["name"] for preset in listed] == list(PRESETS)

    drafted = await api.call("POST", "/v1/rule-set-presets/life_cycle/draft", role="analyst")
    unknown = await api.call("POST", "/v1/rule-set-presets/none/draft", role="analyst")

    assert (drafted.status_code, drafted.json()["status"]) == (201, "draft")
    assert [rule["label"] for rule in drafted.json()["rule_set"]["segments"]] == [
        "Постоянный",
        "Периодический",
    ]
    assert problem(unknown) == (404, "preset-not-found")


async def test_scores_are_listed_in_pages(api: App, scoring: Scoring) -> None:
    await scoring.hears(*(closed(new_id(), at=datetime.now(UTC)) for _ in range(5)))

    first = (await api.call("GET", "/v1/scores?limit=3")).json()
    second = (await api.call("GET", f"/v1/scores?limit=3&cursor={first['next_cursor']}")).json()
    broken = await api.call("GET", f"/v1/scores?limit=3&cursor=x{first['next_cursor']}")

    assert len({s["client_id"] for s in first["items"] + second["items"]}) == 5
    assert second["next_cursor"] is None
    assert problem(broken) == (400, "cursor-invalid")


async def test_a_rule_set_is_drafted_activated_and_kept(api: App, scoring: Scoring) -> None:
    client = new_id()
    await scoring.hears(closed(client, at=datetime.now(UTC)))
    drafted = await api.call("POST", "/v1/rule-sets", rules(title="Строже"), role="analyst")
    assert (drafted.status_code, drafted.json()["version"]) == (201, 2)

    active = await api.call("POST", "/v1/rule-sets/2/activate", role="analyst")
    again = await api.call("POST", "/v1/rule-sets/2/activate", role="analyst")
    await scoring.applies_new_rules(datetime.now(UTC))

    assert active.json()["status"] == "active"
    assert problem(again) == (409, "rule-set-not-draft")
    listed = (await api.call("GET", "/v1/rule-sets", role="analyst")).json()["items"]
    assert [(r["version"], r["status"]) for r in listed] == [(2, "active"), (1, "retired")]
    score = (await api.call("GET", f"/v1/clients/{client}/score")).json()
    assert (score["rule_version"], score["seq"]) == (2, 1)  # nobody moved
    change = (await api.call("GET", "/v1/rule-sets/2/change", role="analyst")).json()
    assert (change["state"], change["checked"], change["moved"]) == ("finished", 1, 0)
    log = (await api.call("GET", "/v1/audit?action=rules.activated")).json()["items"]
    assert log[0]["subject_id"] == "2"


@pytest.mark.parametrize(
    "change",
    [
        {"period_days": 0},
        {"zone": "Mars/Olympus"},
        {"zone": "../etc/passwd"},
        {"fixed_cuts": {"recency_days": [10, 5, 20, 30]}},
        {"fixed_cuts": {"recency_days": [1, 2, 3]}},
        {"segments": []},
        {"segments": [rules()["segments"][0]] * 2},
        {"segments": [rules()["segments"][0] | {"recency": [5, 1]}]},
        {"segments": [rules()["segments"][0] | {"recency": [0, 9]}]},
        {"exchange_rates": {"USD": "-1"}},
        {"exchange_rates": {"dollar": "90"}},
        {"exchange_rates": {"USD": "1e300"}},
        {"exchange_rates": {"RUB": "2"}},
        {"fixed_cuts": {"recency_days": [1, 2, 3, "Infinity"]}},
        {"fixed_cuts": {"recency_days": [1, 2, 3, 1e300]}},
        {"fixed_cuts": {"monetary_minor": [0, 0, 0, False]}},
        {"segments": [rules()["segments"][0] | {"touch_every_days": 10**12}]},
        {"segments": [rules()["segments"][0] | {"priority": 10**12}]},
        {"otherwise": {"label": "x" * 500_000}},
        {"money_step_minor": 10**18},
        {"period_days": "365"},
        {"zone": "localtime"},
        {"method": "guess"},
        {"method": {"recency": "quintile", "visits": "fixed"}},
        {"ties": "random"},
        {"segments": [rules()["segments"][0] | {"monthly_run_from": 0}]},
        {"segments": [rules()["segments"][0] | {"touch": {"unit": "days"}}]},
        {"calendar": {"week": {}}},
        {"unknown": 1},
    ],
    ids=lambda change: str(change)[:60],
)
async def test_rules_that_make_no_sense_are_refused(api: App, change: dict[str, Any]) -> None:
    answer = await api.call("POST", "/v1/rule-sets", rules(**change), role="analyst")
    assert problem(answer) == (422, "request-invalid")
    assert answer.json()["errors"]


async def test_only_analysts_change_rules(api: App) -> None:
    for path, body in (("/v1/rule-sets", rules()), ("/v1/rescorings", {})):
        answer = await api.call("POST", path, body, role="manager")
        assert problem(answer) == (403, "role-missing")


async def test_unknown_versions_and_rescorings_are_not_found(api: App) -> None:
    for path in ("/v1/rule-sets/99", "/v1/rule-sets/0", "/v1/rule-sets/99999999999"):
        assert problem(await api.call("GET", path)) == (404, "rule-set-not-found")
    assert problem(await api.call("POST", "/v1/rule-sets/99/activate", role="analyst")) == (
        404,
        "rule-set-not-found",
    )
    unknown = await api.call("GET", f"/v1/rescorings/{new_id()}")
    assert problem(unknown) == (404, "rescoring-not-found")


async def test_a_rescoring_is_started_once_by_its_key(api: App) -> None:
    key = {"Idempotency-Key": "rescore-1"}
    first = await api.call("POST", "/v1/rescorings", {}, role="analyst", headers=key)
    second = await api.call("POST", "/v1/rescorings", {}, role="analyst", headers=key)

    assert first.status_code == second.status_code == 202
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    state = await api.call("GET", first.headers["location"])
    assert state.json()["state"] == "running"


async def test_a_dead_letter_is_looked_at_mended_and_replayed(api: App, scoring: Scoring) -> None:
    client = new_id()
    bad = closed(client, currency="CHF", at=datetime.now(UTC))
    await scoring.hears(bad)
    (letter,) = (await api.call("GET", "/v1/dead-letters?state=poison")).json()["items"]
    shown = (await api.call("GET", f"/v1/dead-letters/{letter['id']}")).json()
    assert shown["data"]["currency"] == "CHF"
    assert "CurrencyWithoutRate" in shown["reason"]

    mended = shown["data"] | {"currency": "RUB"}
    path = f"/v1/dead-letters/{letter['id']}/replay"
    answer = await api.call("POST", path, {"data": mended})
    again = await api.call("POST", path, {})

    assert (answer.status_code, answer.json()["state"]) == (202, "replaying")
    assert problem(again) == (409, "dead-letter-settled")
    data = await scoring.database.pool.fetchval("SELECT data FROM dead_letters")
    assert b'"RUB"' in data


async def test_a_dead_letter_is_discarded_with_a_reason(api: App, scoring: Scoring) -> None:
    await scoring.hears(closed(new_id(), currency="CHF", at=datetime.now(UTC)))
    (letter,) = (await api.call("GET", "/v1/dead-letters")).json()["items"]
    path = f"/v1/dead-letters/{letter['id']}/discard"

    bare = await api.call("POST", path, {})
    by_manager = await api.call("POST", path, {"reason": "x"}, role="manager")
    done = await api.call("POST", path, {"reason": "test data"})

    assert problem(bare) == (422, "request-invalid")
    assert problem(by_manager) == (403, "role-missing")
    assert done.json()["state"] == "discarded"
    unknown = await api.call("GET", "/v1/dead-letters/999999999999999999999")
    assert problem(unknown)[0] in (404, 422)
