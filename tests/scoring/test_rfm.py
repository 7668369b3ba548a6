"""Ratings, cuts and segments, against their definitions."""

from bisect import bisect_left
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scoring.presets import DEFAULT_RULE_SET
from services.scoring.rfm import (
    Cuts,
    Figures,
    Ranges,
    Scores,
    monthly_run,
    quintile_bounds,
    run_ends_on,
    segment_of,
)
from services.scoring.rules import Rules

CUTS = Cuts((31, 61, 91, 181), (2, 3, 5, 10), (500, 2000, 5000, 15000))


@pytest.mark.parametrize(
    ("days", "rating"), [(0, 5), (30, 5), (31, 4), (60, 4), (61, 3), (90, 3), (91, 2), (181, 1)]
)
def test_fewer_days_since_the_last_purchase_are_better(days: int, rating: int) -> None:
    assert CUTS.rate(Figures(days, 1, 0)).recency == rating


@pytest.mark.parametrize(
    ("frequency", "money", "scores"),
    [(1, 499, (1, 1)), (2, 500, (2, 2)), (9, 4999, (4, 3)), (10, 15000, (5, 5)), (0, -5, (1, 1))],
)
def test_a_value_on_a_bound_takes_the_better_rating(
    frequency: int, money: int, scores: tuple[int, int]
) -> None:
    rated = CUTS.rate(Figures(0, frequency, money))
    assert (rated.frequency, rated.monetary) == scores


@pytest.mark.parametrize(("days", "bound"), [(0, 31), (30, 31), (31, 61), (180, 181), (181, None)])
def test_the_next_bound_is_where_the_rating_gets_worse(days: int, bound: int | None) -> None:
    assert CUTS.next_recency_bound(days) == bound
    if bound is not None:
        before, after = (CUTS.rate(Figures(d, 1, 1)).recency for d in (bound - 1, bound))
        assert after == before - 1


def test_a_fractional_bound_is_crossed_on_the_first_whole_day_behind_it() -> None:
    cuts = Cuts((10.4, 20, 30, 40), (1, 2, 3, 4), (1, 2, 3, 4))

    assert cuts.next_recency_bound(0) == 11
    assert cuts.rate(Figures(10, 1, 1)).recency == 5
    assert cuts.rate(Figures(11, 1, 1)).recency == 4


def test_every_possible_rating_has_exactly_one_segment() -> None:
    rules = Rules.of(1, DEFAULT_RULE_SET, CUTS)

    assert len(rules.segments) == 125
    assert set(rules.segments.values()) <= set(DEFAULT_RULE_SET.treatment())
    assert rules.segments[Scores(5, 5, 5)] == "champions"
    assert rules.segments[Scores(1, 1, 1)] == "lost"


def test_the_first_segment_that_holds_the_ratings_wins() -> None:
    everything = (1, 5)
    ranges = [
        Ranges("best", (5, 5), (5, 5), (5, 5)),
        Ranges("all", everything, everything, everything),
        Ranges("never", (5, 5), (5, 5), (5, 5)),
    ]

    assert segment_of(Scores(5, 5, 5), ranges, "others") == "best"
    assert segment_of(Scores(5, 5, 4), ranges, "others") == "all"
    assert segment_of(Scores(5, 5, 4), ranges[:1], "others") == "others"


def test_quintiles_interpolate_and_end_one_step_above_the_quantile() -> None:
    # R's quantile(1:11, c(.2, .4, .6, .8)) is 3 5 7 9; the package rfm adds one to each bound.
    assert quintile_bounds(list(range(1, 12)), 1) == (4, 6, 8, 10)
    assert quintile_bounds([0, 10], 0) == (2, 4, 6, 8)
    with pytest.raises(ValueError, match="empty"):
        quintile_bounds([], 1)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=200))
def test_a_better_value_never_gets_a_worse_rating(values: list[int]) -> None:
    bounds = quintile_bounds(values, 1)
    cuts = Cuts(bounds, bounds, bounds)
    ordered = sorted(values)

    rated = [cuts.rate(Figures(v, v, v)) for v in ordered]

    assert [r.frequency for r in rated] == sorted(r.frequency for r in rated)
    assert [r.recency for r in rated] == sorted((r.recency for r in rated), reverse=True)
    assert all(1 <= part <= 5 for scores in rated for part in scores)
    lowest = bisect_left(ordered, bounds[0])
    assert all(r.frequency == 1 for r in rated[:lowest])


@pytest.mark.parametrize(
    ("months", "run"),
    [
        ([], 0),
        (["2025-03"], 1),
        (["2025-02"], 1),  # March may still come
        (["2025-01"], 0),
        (["2025-01", "2025-03"], 1),
        (["2024-12", "2025-01", "2025-02"], 3),
        (["2024-11", "2025-01", "2025-02", "2025-03"], 3),
    ],
)
def test_a_run_counts_months_in_a_row_up_to_now(months: list[str], run: int) -> None:
    days = [date.fromisoformat(f"{month}-{day}") for month in months for day in ("07", "21")]
    assert monthly_run(days, date(2025, 3, 25)) == run


@pytest.mark.parametrize(
    ("last", "ends"), [("2025-01-31", "2025-03-01"), ("2024-11-01", "2025-01-01")]
)
def test_a_run_ends_when_a_whole_month_went_by_without_a_purchase(last: str, ends: str) -> None:
    day, end = date.fromisoformat(last), date.fromisoformat(ends)
    assert run_ends_on(day) == end
    assert monthly_run([day], date.fromordinal(end.toordinal() - 1)) == 1
    assert monthly_run([day], end) == 0


def test_a_segment_may_ask_for_a_run_of_months() -> None:
    everything = (1, 5)
    ranges = [
        Ranges("regular", everything, everything, everything, monthly_run_from=3),
        Ranges("all", everything, everything, everything),
    ]

    assert segment_of(Scores(1, 1, 1), ranges, "others", 2) == "all"
    assert segment_of(Scores(1, 1, 1), ranges, "others", 3) == "regular"
