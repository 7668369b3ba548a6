"""What a preview tells is what activation does."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from libs.shared.ids import new_id
from services.scoring.activation import activate, figures_of, stored_cuts
from services.scoring.models import RulePreview
from services.scoring.presets import DEFAULT_RULE_SET, PRESETS
from services.scoring.preview import Preview, preview
from services.scoring.rating_in_sql import Rating
from services.scoring.rules import Methods, Rules, RuleSet
from services.scoring.rules_in_force import draft, prepared
from tests.apps import App, problem
from tests.scoring.conftest import NEW_YEAR, Scoring, closed
from tests.scoring.test_api import rules
from tests.scoring.test_purchases import history

LAST_HEARD = NEW_YEAR + timedelta(days=550)
DRAFTS = {
    "quintiles": DEFAULT_RULE_SET.model_copy(update={"method": "quintile"}),
    "mixed": DEFAULT_RULE_SET.model_copy(
        update={"method": Methods(frequency="quintile"), "ties": "above"}
    ),
    "another period": DEFAULT_RULE_SET.model_copy(
        update={"period_days": 120, "method": "quintile"}
    ),
} | {name: PRESETS[name] for name in ("recency_abc", "value_classes", "life_cycle")}


async def previewed(
    scoring: Scoring, rule_set: RuleSet, now: datetime
) -> tuple[Preview, dict[UUID, str]]:
    """The preview, and of the same state of the database the segment each client would get."""
    async with (
        scoring.database.pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        found = await preview(connection, rule_set, now=now)
        would_be = Rules.of(0, rule_set, found.cuts)
        rating = Rating(would_be, would_be.day_of(now))
        statement = rating.rated(await figures_of(connection, rating, now))
        rows = await connection.fetch(statement, *rating.values)
    return found, {row["client_id"]: row["new_segment"] for row in rows}


async def activated(scoring: Scoring, rule_set: RuleSet, found: Preview, now: datetime) -> None:
    async with scoring.database.session() as session:
        await prepared(session)
        version = (await draft(session, rule_set, by="ann", now=now)).version
        kept = RulePreview(
            preview_id=new_id(),
            version=version,
            cuts=stored_cuts(found.cuts),
            moves=[],
            made_at=now,
            made_by="ann",
        )
        session.add(kept)
    async with scoring.database.session() as session:
        await activate(session, version, by="ann", now=now, as_previewed=kept.preview_id)


async def segments(scoring: Scoring) -> dict[UUID, str | None]:
    rows = await scoring.database.pool.fetch("SELECT client_id, segment FROM scores")
    return {row["client_id"]: row["segment"] for row in rows}


@pytest.mark.parametrize("days_without_a_timer", [0, 200])
@pytest.mark.parametrize("name", DRAFTS)
async def test_the_preview_is_what_activation_does(
    scoring: Scoring, name: str, days_without_a_timer: int
) -> None:
    await scoring.hears(*history())
    await scoring.ages_until(LAST_HEARD)
    now = LAST_HEARD + timedelta(days=days_without_a_timer)
    before = await segments(scoring)

    found, _ = await previewed(scoring, DRAFTS[name], now)
    await activated(scoring, DRAFTS[name], found, now)
    await scoring.applies_new_rules(now)

    after = await segments(scoring)
    moves = Counter((before[client], after[client]) for client in before)
    told = {(m.old_segment, m.new_segment): m.clients for m in found.moves}
    assert told == moves
    rows = await scoring.database.pool.fetch("SELECT client_id, monetary_minor FROM scores")
    money = {row["client_id"]: row["monetary_minor"] for row in rows}
    for cell in found.moves:
        pair = (cell.old_segment, cell.new_segment)
        here = [client for client in before if (before[client], after[client]) == pair]
        assert cell.monetary_minor == sum(money[client] for client in here)
        dearest = sorted(here, key=lambda client: (-money[client], client))[:5]
        assert list(cell.examples) == (dearest if pair[0] != pair[1] else [])
    assert (await scoring.is_rescored(now))["mismatches"] == 0


@pytest.mark.parametrize("name", ["quintiles", "another period"])
async def test_purchases_that_come_in_meanwhile_move_only_who_bought(
    scoring: Scoring, second_worker: Scoring, name: str
) -> None:
    await scoring.hears(*history())
    await scoring.ages_until(LAST_HEARD)
    clients = list(await segments(scoring))
    buyers = clients[::3]
    ended = asyncio.Event()

    async def buy() -> int:
        bought = 0
        while not ended.is_set():
            some = [closed(buyer, money=70_000, at=LAST_HEARD) for buyer in buyers]
            await second_worker.hears(*some)
            bought += len(some)
        return bought

    buying = asyncio.create_task(buy())
    found, told = await previewed(scoring, DRAFTS[name], LAST_HEARD)
    await activated(scoring, DRAFTS[name], found, LAST_HEARD)
    await scoring.applies_new_rules(LAST_HEARD)
    ended.set()

    assert await buying > 0
    assert sum(cell.clients for cell in found.moves) == len(clients)
    after = await segments(scoring)
    quiet = set(clients) - set(buyers)
    assert {c: after[c] for c in quiet} == {c: told[c] for c in quiet}
    report = await scoring.is_rescored(LAST_HEARD)
    assert (report["mismatches"], report["history_mismatches"]) == (0, 0)


async def test_a_draft_is_previewed_and_activated_as_previewed_by_api(
    api: App,
    scoring: Scoring,
) -> None:
    now = datetime.now(UTC)
    await scoring.hears(
        *(closed(new_id(), ago=ago, money=1000 * ago + 50, at=now) for ago in range(1, 60))
    )
    await api.call("POST", "/v1/rule-sets", rules(method="quintile"), role="analyst")

    answer = await api.call("POST", "/v1/rule-sets/2/previews", {}, role="analyst")
    told = answer.json()
    again = (await api.call("GET", answer.headers["location"], role="manager")).json()
    await scoring.hears(*(closed(new_id(), at=now) for _ in range(20)))
    path = f"/v1/rule-sets/2/activate?as_previewed={told['preview_id']}"
    active = (await api.call("POST", path, role="analyst")).json()

    assert answer.status_code == 201
    assert again == told
    assert (told["clients"], told["currency"]) == (59, "RUB")
    assert told["moving"] == sum(
        cell["clients"] for cell in told["matrix"] if cell["old_segment"] != cell["new_segment"]
    )
    assert active["cuts"] == told["cuts"]


async def test_previews_of_what_is_not_there_are_refused(api: App) -> None:
    await api.call("POST", "/v1/rule-sets", rules(method="quintile"), role="analyst")
    await api.call("POST", "/v1/rule-sets", rules(), role="analyst")
    made = (await api.call("POST", "/v1/rule-sets/3/previews", {}, role="analyst")).json()

    calls: list[tuple[str, str, Any]] = [
        ("POST", "/v1/rule-sets/2/previews", (409, "base-is-empty")),
        ("POST", "/v1/rule-sets/9/previews", (404, "rule-set-not-found")),
        ("GET", f"/v1/previews/{new_id()}", (404, "preview-not-found")),
        # A preview of another version says nothing about this one.
        (
            "POST",
            f"/v1/rule-sets/2/activate?as_previewed={made['preview_id']}",
            (404, "preview-not-found"),
        ),
        ("GET", "/v1/rule-sets/2/change", (404, "rule-set-not-found")),
    ]
    for method, path, expected in calls:
        answer = await api.call(method, path, {} if method == "POST" else None, role="analyst")
        assert problem(answer) == expected, path
    by_manager = await api.call("POST", "/v1/rule-sets/3/previews", {}, role="manager")
    assert problem(by_manager) == (403, "role-missing")
