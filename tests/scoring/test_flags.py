"""Segments called wrong, what would mend them, and overrides that expire."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from libs.shared.ids import new_id
from services.scoring.flags.proposals import Flagged, best_shifts, shifted
from services.scoring.past import migration, standing_at
from services.scoring.presets import DEFAULT_RULE_SET
from services.scoring.rfm import Cuts, Figures
from services.scoring.rules import Rules
from services.scoring.rules_in_force import rules_in_force
from tests.apps import App, problem
from tests.scoring.conftest import Scoring, closed

CUTS = Cuts((31, 61, 91, 181), (2, 3, 5, 10), (500_000, 2_000_000, 5_000_000, 15_000_000))
RULES = Rules.of(1, DEFAULT_RULE_SET, CUTS)


def now() -> datetime:
    return datetime.now(UTC)


async def rules_of(scoring: Scoring) -> Rules:
    async with scoring.database.pool.acquire() as connection:
        return await rules_in_force(connection)


async def flag(api: App, client: UUID, manager: UUID | None = None, **said: Any) -> httpx.Response:
    body = {"reason": "season", **said}
    path = f"/v1/clients/{client}/segment-flags"
    return await api.call("POST", path, body, role="manager", manager_id=manager or new_id())


async def decide(api: App, *flags: str, **given: Any) -> httpx.Response:
    body = {"flag_ids": list(flags), "note": "обсудили", **given}
    return await api.call("POST", "/v1/segment-decisions", body, role="analyst")


async def segment_of(scoring: Scoring, client: UUID) -> str:
    found: str = (await scoring.score(client))["segment"]
    return found


async def test_a_flag_keeps_the_figures_it_was_raised_about(api: App, scoring: Scoring) -> None:
    client, manager = new_id(), new_id()
    await scoring.hears(closed(client, ago=40, money=700_000, at=now()))

    raised = await flag(api, client, manager, should_be="champions", note="звонит каждую неделю")
    again = await flag(api, client, manager, should_be="champions", note="и платит")

    assert raised.status_code == 201
    told = raised.json()
    assert (told["segment"], told["should_be"]) == ("new_customers", "champions")
    assert (told["recency_days"], told["frequency"], told["monetary_minor"]) == (40, 1, 700_000)
    assert again.json()["flag_id"] == told["flag_id"]  # twice is once, with the newer words
    listed = (await api.call("GET", f"/v1/segment-flags?client_id={client}")).json()["items"]
    assert [item["note"] for item in listed] == ["и платит"]


async def test_a_flag_that_makes_no_sense_is_refused(api: App, scoring: Scoring) -> None:
    client = new_id()
    await scoring.hears(closed(client, ago=40, at=now()))
    assert problem(await flag(api, new_id())) == (404, "client-without-segment")
    assert problem(await flag(api, client, reason="mood")) == (422, "flag-reason-unknown")
    assert problem(await flag(api, client, should_be="heroes")) == (422, "segment-unknown")
    here = await segment_of(scoring, client)
    assert problem(await flag(api, client, should_be=here)) == (422, "segment-is-that")


def test_the_shift_that_settles_most_flags_comes_first() -> None:
    """Three clients bought four times for little; their managers say more of them is right."""
    rated = CUTS.rate(Figures(10, 4, 450_000))
    richer = RULES.segments[rated._replace(monetary=rated.monetary + 1)]
    here = RULES.segments[rated]
    assert here != richer
    flags = [Flagged(Figures(10, 4, 450_000 + n), here, richer) for n in range(3)]
    content = Flagged(Figures(10, 4, 420_000), here, "lost")  # no shift of one bound gives that

    first, *_ = best_shifts([*flags, content], RULES, most=5)

    assert (first.axis, first.bound, first.settles, first.spoils) == ("monetary_minor", 0, 3, 0)
    assert first.new == 450_000


def test_a_bound_never_passes_its_neighbour() -> None:
    assert shifted(CUTS, "recency_days", 0, 62) is None
    assert shifted(CUTS, "recency_days", 0, -1) is None
    bounds = (61, 61, 91, 181)
    assert shifted(CUTS, "recency_days", 0, 61) == replace(CUTS, recency_days=bounds)


async def test_proposals_tell_whom_else_they_would_move_and_do_just_that(
    api: App, scoring: Scoring
) -> None:
    at = now()
    flagged, others = [new_id() for _ in range(3)], [new_id() for _ in range(4)]
    await scoring.hears(
        *(closed(client, ago=33, money=700_000, at=at) for client in flagged),
        *(closed(client, ago=32, money=700_000, at=at) for client in others),
        *(closed(new_id(), ago=150, money=700_000, at=at) for _ in range(5)),
    )
    raised = [(await flag(api, client)).json() for client in flagged]
    gathered = (await api.call("GET", "/v1/segment-flags/agenda", role="analyst")).json()
    assert [(line["flags"], line["managers"]) for line in gathered["gathered"]] == [(3, 3)]

    proposals = (await api.call("GET", "/v1/segment-flags/proposals", role="analyst")).json()
    assert proposals
    first = proposals[0]
    assert first["settles"] == 3
    told = {(m["old_segment"], m["new_segment"]): m["clients"] for m in first["moves"]}
    before = {client: await segment_of(scoring, client) for client in (*flagged, *others)}

    drafted = await api.call("POST", "/v1/rule-sets", first["rule_set"], role="analyst")
    version = drafted.json()["version"]
    await api.call("POST", f"/v1/rule-sets/{version}/activate", {}, role="analyst")
    await scoring.applies_new_rules(now())
    moved: dict[tuple[str, str], int] = {}
    for client, old in before.items():
        new = await segment_of(scoring, client)
        if new != old:
            moved[old, new] = moved.get((old, new), 0) + 1
    assert moved == told

    answer = await decide(
        api, *(each["flag_id"] for each in raised), verdict="rules_changed", rule_version=version
    )
    assert answer.status_code == 201, answer.text
    agenda = (await api.call("GET", "/v1/segment-flags/agenda", role="analyst")).json()
    assert agenda["gathered"] == []
    assert [decision["verdict"] for decision in agenda["decided"]] == ["rules_changed"]
    twice = await decide(api, raised[0]["flag_id"], verdict="rejected")
    assert problem(twice) == (409, "flags-not-open")


async def test_an_override_holds_until_its_day_and_then_the_rules_do(
    api: App, scoring: Scoring
) -> None:
    client = new_id()
    await scoring.hears(closed(client, ago=40, money=700_000, at=now()))
    own = await segment_of(scoring, client)
    raised = (await flag(api, client, should_be="champions")).json()
    until = now().date() + timedelta(days=20)
    decided = await decide(
        api,
        raised["flag_id"],
        verdict="overridden",
        override_segment="champions",
        override_until=until.isoformat(),
    )
    assert decided.status_code == 201, decided.text
    assert await segment_of(scoring, client) == "champions"

    # A purchase, new rules and a full rescoring leave the analyst's word alone.
    await scoring.hears(closed(client, ago=39, money=100_000, at=now()))
    drafted = await api.call(
        "POST", "/v1/rule-sets", DEFAULT_RULE_SET.model_dump(mode="json"), role="analyst"
    )
    path = f"/v1/rule-sets/{drafted.json()['version']}/activate"
    assert (await api.call("POST", path, {}, role="analyst")).status_code == 200
    await scoring.applies_new_rules(now())
    assert await segment_of(scoring, client) == "champions"
    rescoring = await scoring.is_rescored(now())
    assert (rescoring["mismatches"], rescoring["history_mismatches"]) == (0, 0)

    await scoring.ages_until(now() + timedelta(days=21))
    after = await segment_of(scoring, client)
    assert after != "champions"
    history = await scoring.database.pool.fetch(
        "SELECT seq, new_segment, reason FROM segment_history ORDER BY seq"
    )
    assert [row["seq"] for row in history] == list(range(1, len(history) + 1))
    assert [(row["new_segment"], row["reason"]) for row in history][:2] == [
        (own, "purchase"),
        ("champions", "override"),
    ]
    assert history[-1]["new_segment"] == after
    assert (await scoring.is_rescored(now() + timedelta(days=21)))["mismatches"] == 0


async def test_the_past_knows_the_overrides_of_the_time(api: App, scoring: Scoring) -> None:
    client, other = new_id(), new_id()
    began = now()
    await scoring.hears(closed(client, ago=40, money=700_000, at=began))
    await scoring.hears(closed(other, ago=40, money=700_000, at=began))
    own = await segment_of(scoring, client)
    until = began.date() + timedelta(days=20)
    for segment in ("champions", "lost"):
        raised = (await flag(api, client, should_be=segment)).json()
        answer = await decide(
            api,
            raised["flag_id"],
            verdict="overridden",
            override_segment=segment,
            override_until=until.isoformat(),
        )
        assert answer.status_code == 201, answer.text
    path = f"/v1/clients/{client}/segment-override/take-back"
    assert (await api.call("POST", path, {}, role="analyst")).status_code == 204

    async with scoring.database.transaction() as tx:
        given = await tx.fetch("SELECT given_at FROM segment_overrides ORDER BY override_id")
        times = [row["given_at"] for row in given]  # by the service's clock
        told = [await standing_at(tx, client, at) for at in (began, *times)]
        beside = await standing_at(tx, other, times[0])
    assert [then and then.segment for then in told] == [own, "champions", "lost", own]
    assert beside is not None
    assert beside.segment == own


async def test_the_past_lets_an_override_end_on_its_day(api: App, scoring: Scoring) -> None:
    client = new_id()
    at = now()
    await scoring.hears(closed(client, ago=40, money=700_000, at=at))
    raised = (await flag(api, client, should_be="champions")).json()
    until = at.date() + timedelta(days=20)
    given = {"override_segment": "champions", "override_until": until.isoformat()}
    await decide(api, raised["flag_id"], verdict="overridden", **given)
    rules = await rules_of(scoring)

    async with scoring.database.transaction() as tx:
        last = await standing_at(tx, client, rules.start_of(until) - timedelta(microseconds=1))
        first = await standing_at(tx, client, rules.start_of(until))
        moves = await migration(tx, until - timedelta(days=1), until)
    assert last is not None
    assert first is not None
    assert (last.segment, first.segment != "champions") == ("champions", True)
    assert [(m.before, m.after) for m in moves] == [("champions", first.segment)]


async def test_an_override_is_taken_back_once(api: App, scoring: Scoring) -> None:
    client = new_id()
    await scoring.hears(closed(client, ago=40, at=now()))
    own = await segment_of(scoring, client)
    raised = (await flag(api, client)).json()
    until = (now().date() + timedelta(days=9)).isoformat()
    given = {"verdict": "overridden", "override_segment": "lost", "override_until": until}
    assert (await decide(api, raised["flag_id"], **given)).status_code == 201
    path = f"/v1/clients/{client}/segment-override/take-back"
    for _ in range(2):
        assert (await api.call("POST", path, {}, role="analyst")).status_code == 204
    assert await segment_of(scoring, client) == own
    assert (await scoring.score(client))["seq"] == 3


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"override_segment": "lost"}, "override-incomplete"),
        ({"override_until": "2100-01-01"}, "override-incomplete"),
        ({"override_segment": "lost", "override_until": "2001-01-01"}, "override-incomplete"),
        ({"override_segment": "heroes", "override_until": "tomorrow"}, "segment-unknown"),
        ({"override_segment": "lost", "override_until": "2100-01-01"}, "override-too-long"),
    ],
)
async def test_an_override_that_makes_no_sense_is_refused(
    api: App, scoring: Scoring, given: dict[str, Any], code: str
) -> None:
    client = new_id()
    await scoring.hears(closed(client, ago=40, at=now()))
    raised = (await flag(api, client)).json()
    tomorrow = (now().date() + timedelta(days=2)).isoformat()
    given = {k: tomorrow if v == "tomorrow" else v for k, v in given.items()}
    answer = await decide(api, raised["flag_id"], verdict="overridden", **given)
    assert problem(answer) == (422, code)


async def test_managers_raise_flags_and_analysts_decide(api: App, scoring: Scoring) -> None:
    client = new_id()
    await scoring.hears(closed(client, ago=40, at=now()))
    raised = (await flag(api, client)).json()
    body = {"flag_ids": [raised["flag_id"]], "verdict": "rejected", "note": "нет"}
    answer = await api.call("POST", "/v1/segment-decisions", body, role="manager")
    assert answer.status_code == 403
