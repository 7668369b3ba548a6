"""Recency, frequency, monetary: what a client's purchases are worth on a given day.

Three figures are taken over the rule set's period: whole days since the last purchase (over all
time), days with a purchase, and money kept after returns. Each is rated 1 to 5 against four stored
cuts, and the first segment whose conditions hold all three ratings is the client's. Cuts move only
with a new rule version, so one client's purchase never changes another client's segment. A segment
may also ask for a run of months with a purchase each: who buys every month is a client of another
kind than who bought as often in one week.

Source: A. M. Hughes, Strategic Database Marketing (1994); segment ranges as in the R package `rfm`.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import accumulate
from typing import NamedTuple


class Figures(NamedTuple):
    """What is rated.

    Attributes:
        recency_days: Whole days from the last purchase to the day of scoring; 0 is the same day.
        frequency: Days with a purchase in the period (or purchases, where the rule set counts
            those); 0 when all are older.
        monetary_minor: Money kept in the period, minor units of the reporting currency. Negative
            when more was given back in the period than bought.
    """

    recency_days: int
    frequency: int
    monetary_minor: int


class Scores(NamedTuple):
    """Three ratings, 1 to 5, 5 is best."""

    recency: int
    frequency: int
    monetary: int


@dataclass(frozen=True, slots=True)
class Cuts:
    """Four ascending bounds for each axis; a value equal to a bound is above it.

    Attributes:
        recency_days: At or above the first bound the rating is 4, at or above the last it is 1.
        frequency: At or above the first bound the rating is 2, at or above the last it is 5.
        monetary_minor: As frequency, in minor units.
    """

    recency_days: tuple[float, ...]
    frequency: tuple[float, ...]
    monetary_minor: tuple[float, ...]

    def rate(self, figures: Figures) -> Scores:
        """Rate the three figures; recency is inverted: fewer days is better."""
        return Scores(
            5 - bisect_right(self.recency_days, figures.recency_days),
            1 + bisect_right(self.frequency, figures.frequency),
            1 + bisect_right(self.monetary_minor, figures.monetary_minor),
        )

    def next_recency_bound(self, recency_days: int) -> int | None:
        """How many days without a purchase it takes for the next worse recency rating."""
        index = bisect_right(self.recency_days, recency_days)
        if index == len(self.recency_days):
            return None
        bound = self.recency_days[index]
        whole = int(bound)
        return whole if whole == bound else whole + 1


class Ranges(NamedTuple):
    """What a segment takes in: ratings, both ends included, and the least run of months."""

    segment: str
    recency: tuple[int, int]
    frequency: tuple[int, int]
    monetary: tuple[int, int]
    monthly_run_from: int = 0

    def holds(self, scores: Scores, monthly_run: int = 0) -> bool:
        return (
            self.recency[0] <= scores.recency <= self.recency[1]
            and self.frequency[0] <= scores.frequency <= self.frequency[1]
            and self.monetary[0] <= scores.monetary <= self.monetary[1]
            and monthly_run >= self.monthly_run_from
        )


EVERY_SCORES = tuple(Scores(r, f, m) for r in range(1, 6) for f in range(1, 6) for m in range(1, 6))


def segment_of(
    scores: Scores, ranges: Sequence[Ranges], otherwise: str, monthly_run: int = 0
) -> str:
    """The first segment in list order whose conditions hold; `otherwise` when none does."""
    return next((r.segment for r in ranges if r.holds(scores, monthly_run)), otherwise)


def segment_map(
    ranges: Sequence[Ranges], otherwise: str, monthly_run: int = 0
) -> Mapping[Scores, str]:
    """The segment of each of the 125 possible ratings, for a run of so many months."""
    return {scores: segment_of(scores, ranges, otherwise, monthly_run) for scores in EVERY_SCORES}


def month_of(day: date) -> int:
    """Calendar months counted from year 0."""
    return day.year * 12 + day.month - 1


def monthly_run(days: Iterable[date], today: date) -> int:
    """How many calendar months in a row, up to now, each had a purchase.

    The current month may still be without one. A run has ended when the month before the current
    one had none.
    """
    months = {month_of(day) for day in days}
    last = max(months, default=None)
    if last is None or last < month_of(today) - 1:
        return 0
    run = 1
    while last - run in months:
        run += 1
    return run


def run_ends_on(last_day: date) -> date:
    """The day on which a run is over if nothing more is bought."""
    month = month_of(last_day) + 2
    return date(month // 12, month % 12 + 1, 1)


def quintile_bounds(values: Sequence[float], step: float) -> tuple[float, ...]:
    """Four bounds that split the values into fifths.

    Args:
        values: At least one.
        step: Added to each quantile, so that a value equal to the quantile stays below the bound:
            1 for whole days and purchases, one major unit for money.

    Raises:
        ValueError: No values: an empty base has no quintiles.

    Source: linear interpolation, type 7 of Hyndman and Fan (1996); bounds as in the R package rfm.
    """
    return quintile_bounds_of(Counter(values), step)


def quintile_bounds_of(counted: Mapping[float, int], step: float) -> tuple[float, ...]:
    """The same of values that are given with how often they occur."""
    if not counted:
        raise ValueError("an empty base has no quintiles")
    ordered = sorted(counted)
    ends = list(accumulate(counted[value] for value in ordered))  # places behind each value

    def at(place: int) -> float:
        return ordered[bisect_right(ends, place)]

    return tuple(_quantile(at, ends[-1], share / 5) + step for share in range(1, 5))


def _quantile(at: Callable[[int], float], count: int, share: float) -> float:
    position = (count - 1) * share
    below = int(position)
    low, high = at(below), at(min(below + 1, count - 1))
    return low + (high - low) * (position - below)
