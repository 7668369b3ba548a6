"""Clients who buy in a habit: at a usual interval, or in a season. Learnt from the history.

Source: requirements S-19, C-08. `touches/planning.py` says the same in SQL.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from statistics import quantiles
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class HabitRule(BaseModel):
    """When a history is a habit. It is part of a rule set: new ones plan all touches anew.

    Attributes:
        least_intervals: Between purchase days; of fewer nothing is learnt.
        least_seasons: That began.
        season_pause_days: Between two purchases: a longer pause ends a season.
        season_strictness: By how much the distances of seasons may differ less than intervals may.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    least_intervals: Annotated[int, Field(strict=True, ge=2, le=100)] = 3
    least_seasons: Annotated[int, Field(strict=True, ge=3, le=100)] = 3
    season_pause_days: Annotated[int, Field(strict=True, ge=1, le=3660)] = 60
    season_strictness: Annotated[int, Field(strict=True, ge=1, le=100)] = 4


USUAL = HabitRule()


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


def habit_of(days: Sequence[date], rule: HabitRule = USUAL) -> Habit | None:
    """A client's habit; None where there is none. An interval comes before a season.

    Args:
        days: Purchase days, ascending, each once.
    """
    if (every := usual_interval(days, rule)) is not None:
        return Habit("interval", every, days[-1] + timedelta(every))
    begins = seasons(days, rule)
    if len(begins) < rule.least_seasons:
        return None
    if (every := _usual(begins, rule.season_strictness)) is not None:
        return Habit("season", every, begins[-1] + timedelta(every))
    return None


def usual_interval(days: Sequence[date], rule: HabitRule = USUAL) -> int | None:
    """The median number of days between purchase days; None where there is no habit.

    It is a habit when the middle half of the intervals differ by no more than the median is long.
    """
    return _usual(days, 1) if len(days) > rule.least_intervals else None


def seasons(days: Sequence[date], rule: HabitRule = USUAL) -> list[date]:
    """The days on which seasons began: the first, and each after a long pause."""
    return [
        later
        for earlier, later in pairwise([date.min, *days])
        if earlier == date.min or (later - earlier).days > rule.season_pause_days
    ]


def _usual(days: Sequence[date], strictness: int) -> int | None:
    distances = [(later - earlier).days for earlier, later in pairwise(days)]
    low, middle, high = quantiles(distances, n=4, method="inclusive")
    return round(middle) if (high - low) * strictness <= middle else None
