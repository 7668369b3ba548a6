"""On any history of purchases, returns, waiting and changes of rules, the stream ends where a full
recompute from the bare purchases ends, with a history of moves that has no gap.
"""

from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.shared.events import DealClosed
from libs.shared.ids import new_id
from services.scoring import rule_change
from services.scoring.presets import DEFAULT_RULE_SET, PRESETS
from services.scoring.rules import RuleSet
from tests.scoring.conftest import NEW_YEAR, Scoring, closed, reversed_
from tests.scoring.test_ageing_and_rescoring import activated

RULE_SETS: tuple[RuleSet, ...] = (
    *PRESETS.values(),
    DEFAULT_RULE_SET.model_copy(update={"method": "quintile"}),
    DEFAULT_RULE_SET.model_copy(update={"period_days": 40, "method": "quintile"}),
    PRESETS["life_cycle"].model_copy(update={"frequency_counts": "purchases"}),
)
CLIENTS = [new_id() for _ in range(5)]
_TABLES = "purchases, purchase_counts, returns, scores, segment_history, outbox, rule_changes"

BUY = st.tuples(st.just("buy"), st.integers(0, 4), st.integers(0, 200), st.integers(0, 9_000_000))
GIVE_BACK = st.tuples(st.just("return"), st.integers(0, 30), st.booleans(), st.just(0))
CHANGE = st.tuples(st.just("rules"), st.integers(0, len(RULE_SETS) - 1), st.booleans(), st.just(0))
WAIT = st.tuples(st.just("wait"), st.integers(0, 150), st.booleans(), st.just(0))
STEPS = st.lists(st.one_of(BUY, BUY, BUY, GIVE_BACK, CHANGE, WAIT), min_size=1, max_size=25)


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_change, "STRETCH", 2)
    monkeypatch.setattr(rule_change, "COUNTED_STRETCH", 2)
    monkeypatch.setattr(rule_change, "LEISURE_STRETCH", 2)


@given(steps=STEPS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_stream_ends_where_a_full_recompute_ends(
    scoring: Scoring, steps: list[tuple[str, int, int, int]]
) -> None:
    await scoring.database.pool.execute(f"TRUNCATE {_TABLES}")
    now, deals = NEW_YEAR, list[DealClosed]()
    for kind, first, second, money in steps:
        now += timedelta(seconds=1)
        if kind == "buy":
            deal = closed(CLIENTS[first], ago=second, money=money, at=now)
            deals.append(deal)
            await scoring.hears(deal)
        elif kind == "return" and deals:
            deal = deals.pop(first % len(deals))
            part = deal.amount_minor // 3
            await scoring.hears(reversed_(deal, money=None if second else part, at=now))
        elif kind == "rules" and await scoring.database.pool.fetchval("SELECT 1 FROM purchases"):
            await _change_rules(scoring, RULE_SETS[first], now, waits=bool(second))
        elif kind == "wait":
            now += timedelta(days=first)
            if second:  # or the timers are late
                await scoring.ages_until(now)
    await scoring.applies_new_rules(now)

    await scoring.ages_until(now)
    report = await scoring.is_rescored(now)

    assert (report["mismatches"], report["history_mismatches"]) == (0, 0)
    said = await scoring.said()
    moves = await scoring.database.pool.fetchval("SELECT sum(seq) FROM scores")
    assert len(said) == len(set(said)) == (moves or 0)


async def _change_rules(scoring: Scoring, rule_set: RuleSet, now: datetime, *, waits: bool) -> None:
    """Put them in force; either everybody is rated at once, or the stream goes on meanwhile."""
    if not await scoring.database.pool.fetchval("SELECT 1 FROM purchases WHERE NOT is_returned"):
        return
    await activated(scoring.database, rule_set, now)
    if not waits:
        await scoring.applies_new_rules(now)
