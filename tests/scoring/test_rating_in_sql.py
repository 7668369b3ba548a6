"""SQL and the standing's own arithmetic come to the same, whatever the history and the rules."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.shared.database import Connection
from libs.shared.ids import new_id
from services.scoring.activation import take_cuts
from services.scoring.presets import DEFAULT_RULE_SET, LIFE_CYCLE, PRESETS, RECENCY_ABC
from services.scoring.rating_in_sql import Rating
from services.scoring.rfm import Cuts, quintile_bounds
from services.scoring.rules import Methods, Rules, RuleSet
from services.scoring.score_keeping import keep, load
from tests.scoring.conftest import NEW_YEAR, Scoring, closed
from tests.scoring.test_purchases import history

VARIANTS: dict[str, dict[str, Any]] = {
    "a short period": {"period_days": 90},
    "purchases counted": {"frequency_counts": "purchases"},
    "a run of months": {"segments": LIFE_CYCLE.segments},
    "another zone": {"zone": "Asia/Vladivostok"},
    "a dear rouble": {
        "reporting_currency": "USD",
        "exchange_rates": {"RUB": Decimal("0.0107"), "EUR": Decimal("1.1")},
    },
}
LATER = NEW_YEAR + timedelta(days=600)


async def test_both_ways_of_rating_agree_with_the_fold(scoring: Scoring) -> None:
    await scoring.hears(*history())
    rules = Rules.of(1, DEFAULT_RULE_SET, Cuts(**DEFAULT_RULE_SET.fixed_cuts.model_dump()))
    for now in (NEW_YEAR + timedelta(days=560), LATER):
        await scoring.ages_until(now)
        for way in ("stored", "counted"):
            assert await rated_in_sql(scoring, rules, now, way) == await folded(scoring, rules, now)


@pytest.mark.parametrize("name", [*VARIANTS, *PRESETS])
async def test_figures_counted_for_other_rules_are_those_of_a_fold(
    scoring: Scoring, name: str
) -> None:
    await scoring.hears(*history())
    rule_set = DEFAULT_RULE_SET.model_copy(update=VARIANTS[name]) if name in VARIANTS else None
    rules = in_force(rule_set or PRESETS[name])

    for days in (551, 600, 650, 800, 1300):
        now = NEW_YEAR + timedelta(days=days)
        counted = await rated_in_sql(scoring, rules, now, "counted")
        assert counted == await folded(scoring, rules, now)
        assert len(counted) == 40


@given(data=st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_cuts_rate_in_sql_as_they_do_in_python(
    scoring: Scoring, data: st.DataObject
) -> None:
    if not await scoring.database.pool.fetchval("SELECT 1 FROM scores LIMIT 1"):
        await scoring.hears(*history())
        await scoring.ages_until(LATER)
    bounds = st.lists(st.floats(0, 400, allow_nan=False), min_size=4, max_size=4).map(sorted)
    cuts = Cuts(
        tuple(data.draw(bounds)),
        tuple(data.draw(bounds)),
        tuple(bound * 10_000 for bound in data.draw(bounds)),
    )
    rules = Rules.of(1, RECENCY_ABC, cuts)

    assert await rated_in_sql(scoring, rules, LATER, "stored") == await folded(
        scoring, rules, LATER
    )


@pytest.mark.parametrize("ties", ["below", "above"])
async def test_quintiles_in_sql_are_those_of_the_definition(scoring: Scoring, ties: str) -> None:
    await scoring.hears(*history())
    await scoring.ages_until(LATER)
    methods = Methods(recency="quintile", frequency="fixed", monetary="quintile")
    rule_set = DEFAULT_RULE_SET.model_copy(update={"method": methods, "ties": ties})

    async with scoring.database.transaction() as tx:
        cuts = await take_cuts(tx, rule_set, now=LATER)

    rows = await scoring.database.pool.fetch("SELECT last_day, monetary_minor FROM scores")
    today = Rules.of(1, rule_set, cuts).day_of(LATER)
    step = 1 if ties == "below" else 0
    assert cuts.recency_days == pytest.approx(
        quintile_bounds([(today - row["last_day"]).days for row in rows], step)
    )
    assert cuts.monetary_minor == pytest.approx(
        quintile_bounds([row["monetary_minor"] for row in rows], 100 * step)
    )
    assert cuts.frequency == rule_set.fixed_cuts.frequency


@pytest.mark.parametrize(
    "zone", ["Europe/Moscow", "America/Havana", "Asia/Beirut", "America/Sao_Paulo", "Asia/Amman"]
)
async def test_days_begin_at_the_same_instant_in_sql(scoring: Scoring, zone: str) -> None:
    """Some of these zones change their clocks at midnight."""
    days = [date(2005, 1, 1) + timedelta(n) for n in range(7000)]
    rating = Rating(in_force(DEFAULT_RULE_SET.model_copy(update={"zone": zone})), days[0])
    given_days = rating.add(days, "date[]")

    rows = await scoring.database.pool.fetch(
        f"SELECT {rating.midnight('day')} FROM unnest({given_days}) AS day", *rating.values
    )

    there = ZoneInfo(zone)
    assert [row[0] for row in rows] == [
        datetime(d.year, d.month, d.day, tzinfo=there).astimezone(UTC) for d in days
    ]


def in_force(rule_set: RuleSet) -> Rules:
    return Rules.of(1, rule_set, Cuts(**rule_set.fixed_cuts.model_dump()))


async def rated_in_sql(
    scoring: Scoring, rules: Rules, now: datetime, way: str
) -> dict[Any, tuple[Any, ...]]:
    rating = Rating(rules, rules.day_of(now))
    figures = rating.stored() if way == "stored" else rating.counted()
    rows = await scoring.database.pool.fetch(rating.rated(figures), *rating.values)
    return {
        row["client_id"]: (
            (row["recency_rating"], row["frequency_rating"], row["monetary_rating"]),
            (row["last_day"], row["oldest_day"], row["frequency"], row["monetary_minor"]),
            row["new_segment"],
            row["due_on"],
            row["monthly_run"],
        )
        for row in rows
    }


async def folded(scoring: Scoring, rules: Rules, now: datetime) -> dict[Any, tuple[Any, ...]]:
    """Everybody's standing, computed from the bare purchases."""
    async with scoring.database.transaction() as tx:
        clients = [row[0] for row in await tx.fetch("SELECT client_id FROM scores")]
        standings = await load(tx, clients, rules)
    found = {}
    for standing in standings.values():
        standing.as_of = max(standing.as_of, rules.day_of(now))
        standing.recompute(rules, at=now)
        assert standing.figures is not None
        found[standing.client_id] = (
            standing.scores,
            (standing.last_day, standing.oldest_day, *standing.figures[1:]),
            standing.segment,
            standing.due_on,
            standing.monthly_run,
        )
    return found


async def test_clients_whose_purchases_were_all_returned_are_rated_by_neither_way(
    scoring: Scoring,
) -> None:
    await scoring.hears(closed(new_id()))
    await scoring.database.pool.execute("UPDATE purchases SET is_returned = true")
    async with scoring.database.transaction() as tx:
        await _settled(tx)
    rules = in_force(DEFAULT_RULE_SET)

    assert await rated_in_sql(scoring, rules, LATER, "stored") == {}
    assert await rated_in_sql(scoring, rules, LATER, "counted") == {}


async def _settled(tx: Connection) -> None:
    rules = in_force(DEFAULT_RULE_SET)
    clients = [row[0] for row in await tx.fetch("SELECT client_id FROM scores")]
    standings = await load(tx, clients, rules)
    for standing in standings.values():
        standing.recompute(rules, at=NEW_YEAR)
    await keep(tx, standings.values(), [], rules)
