"""The rules are looked at again every quarter: whoever keeps them says so, others begin it anew."""

from datetime import UTC, date, datetime, timedelta

from services.scoring.activation import activate
from services.scoring.presets import PRESETS
from services.scoring.rules_in_force import draft, prepared
from tests.apps import App, problem
from tests.scoring.conftest import Scoring


async def next_review(api: App) -> dict[str, object]:
    answer = await api.call("GET", "/v1/rule-reviews/next", role="manager")
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


async def test_a_review_is_due_a_quarter_after_the_last_look(api: App, scoring: Scoring) -> None:
    now = datetime.now(UTC)
    async with scoring.database.session() as session:
        await prepared(session)
        row = await draft(session, PRESETS["client_size"], by="ann", now=now)
        await activate(session, row.version, by="ann", now=now - timedelta(days=92))
    told = await next_review(api)
    assert (told["rule_version"], told["is_due"]) == (row.version, True)

    agenda = (await api.call("GET", "/v1/segment-flags/agenda", role="analyst")).json()
    assert agenda["review_due_on"] == told["due_on"]
    assert date.fromisoformat(agenda["review_due_on"]) <= now.date()

    body = {"note": "Границы держатся, жалоб нет"}
    kept = await api.call("POST", "/v1/rule-reviews", body, role="analyst")
    assert kept.status_code == 201, kept.text
    told = await next_review(api)
    assert (told["is_due"], told["rule_version"]) == (False, row.version)
    due_on = date.fromisoformat(str(told["due_on"]))
    assert due_on - timedelta(91) - now.date() in (timedelta(0), timedelta(1))  # Moscow's day

    listed = (await api.call("GET", "/v1/rule-reviews", role="analyst")).json()["items"]
    assert [(r["note"], r["rule_version"]) for r in listed] == [(body["note"], row.version)]


async def test_the_preset_is_to_be_reviewed_too(api: App, scoring: Scoring) -> None:
    told = await next_review(api)
    assert told["rule_version"] == 1


async def test_other_rules_begin_the_quarter_anew(api: App, scoring: Scoring) -> None:
    now = datetime.now(UTC)
    async with scoring.database.session() as session:
        await prepared(session)
        old = await draft(session, PRESETS["client_size"], by="ann", now=now)
        await activate(session, old.version, by="ann", now=now - timedelta(days=200))
        new = await draft(session, PRESETS["recency_abc"], by="ann", now=now)
        await activate(session, new.version, by="ann", now=now - timedelta(days=90))
    assert (await next_review(api))["is_due"] is False


async def test_only_the_analyst_keeps_rules_and_says_why(api: App) -> None:
    told = await api.call("POST", "/v1/rule-reviews", {"note": "так"}, role="manager")
    assert problem(told) == (403, "role-missing")
    empty = await api.call("POST", "/v1/rule-reviews", {}, role="analyst")
    assert problem(empty)[0] == 422
