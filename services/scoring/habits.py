"""Clients who buy in a habit: their usual interval, learnt from the history.

Source: requirements S-19, C-08.
"""

from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from statistics import quantiles

LEAST_INTERVALS = 3


def usual_interval(days: Sequence[date]) -> int | None:
    """The median number of days between purchase days; None where there is no habit.

    It is a habit when the middle half of the intervals differ by no more than the median is long.

    Args:
        days: Purchase days, ascending, each once.
    """
    intervals = [(later - earlier).days for earlier, later in pairwise(days)]
    if len(intervals) < LEAST_INTERVALS:
        return None
    low, middle, high = quantiles(intervals, n=4, method="inclusive")
    return round(middle) if high - low <= middle else None
