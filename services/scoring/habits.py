"""Clients who buy in a habit: at a usual interval, or in a season. Learnt from the history.

Source: requirements S-19, C-08. `touches/planning.py` says the same in SQL.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from statistics import quantiles

LEAST_INTERVALS = 3
LEAST_SEASONS = 3
PAUSE_DAYS = 60  # between two purchases: a longer one ends a season
STRICTER = 4  # how much less than intervals of purchases the distances of seasons may differ


@dataclass(frozen=True, slots=True)
class Habit:
    """What a history lets expect.

    Attributes:
        kind: interval: days between purchases; season: days between the beginnings of seasons.
        every_days: The usual number.
        next_on: When the next purchase is to be expected.
    """

    kind: str
    every_days: int
    next_on: date


def habit_of(days: Sequence[date]) -> Habit | None:
    """A client's habit; None where there is none. An interval comes before a season.

    Args:
        days: Purchase days, ascending, each once.
    """
    if (every := usual_interval(days)) is not None:
        return Habit("interval", every, days[-1] + timedelta(every))
    begins = seasons(days)
    if len(begins) >= LEAST_SEASONS and (every := _usual(begins, STRICTER)) is not None:
        return Habit("season", every, begins[-1] + timedelta(every))
    return None


def usual_interval(days: Sequence[date]) -> int | None:
    """The median number of days between purchase days; None where there is no habit.

    It is a habit when the middle half of the intervals differ by no more than the median is long.
    """
    return _usual(days, 1) if len(days) > LEAST_INTERVALS else None


def seasons(days: Sequence[date]) -> list[date]:
    """The days on which seasons began: the first, and each after a long pause."""
    return [
        later
        for earlier, later in pairwise([date.min, *days])
        if earlier == date.min or (later - earlier).days > PAUSE_DAYS
    ]


def _usual(days: Sequence[date], strictness: int) -> int | None:
    distances = [(later - earlier).days for earlier, later in pairwise(days)]
    low, middle, high = quantiles(distances, n=4, method="inclusive")
    return round(middle) if (high - low) * strictness <= middle else None
