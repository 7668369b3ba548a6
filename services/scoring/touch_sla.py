"""When a client has to be spoken with: by segment, on the company's working days.

A touch is due so long after the last touch, or after the last purchase where nobody has spoken with
the client since. A segment may also ask for a touch on the very working day of each purchase (the
next one, where the purchase was made on a day off).

Source: requirements S-02, S-04, section 12.1: A the same working day, B every 10 working days, C
weekly.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from libs.shared.arrays import array_text
from libs.shared.calendars import Calendar
from libs.shared.field_types import Flag

EPOCH = date(1970, 1, 1)
MARGIN_DAYS = 60
MOST_WORKING_DAYS = 366


class TouchSla(BaseModel):
    """How soon a segment's clients are to be spoken with.

    Attributes:
        same_working_day: After each purchase, on its working day.
        every: So many days after the last touch or purchase; null: only after purchases.
        before_expected: So many days before the purchase that the client's habit expects
            (`habits.py`), if nobody has spoken with them by then; of clients with a habit only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    same_working_day: Flag = False
    every: Annotated[int, Field(strict=True, ge=1, le=3660)] | None = None
    unit: Literal["days", "working_days"] = "days"
    before_expected: Annotated[int, Field(strict=True, ge=0, le=365)] | None = None

    @property
    def calendar_days(self) -> int:
        """Not less than the days of the calendar that the interval takes."""
        days = self.every or 0
        return days if self.unit == "days" else days * 3  # holidays included, by far

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.every is None and self.before_expected is None and not self.same_working_day:
            raise ValueError("a touch SLA says when a touch is due")
        if self.unit == "working_days" and (self.every or 0) > MOST_WORKING_DAYS:
            raise ValueError(f"at most {MOST_WORKING_DAYS} working days")
        return self


@dataclass(frozen=True, slots=True)
class WorkingDays:
    """Working days, ascending, to count in, each with its first opening and last closing.

    They begin with the decade before, so a due day found by its place among them is the same
    tomorrow: who was last spoken with earlier is late by all means. Behind the last one none is
    known.
    """

    days: Sequence[date]
    spans: Sequence[tuple[datetime, datetime]]

    def first_from(self, day: date) -> date:
        """The first working day not before a day."""
        return self.days[min(bisect_left(self.days, day), len(self.days) - 1)]

    def after(self, day: date, count: int) -> date:
        """The working day that comes so many working days after a day."""
        return self.days[min(bisect_right(self.days, day) + count, len(self.days)) - 1]

    def last_until(self, day: date) -> date | None:
        """The last working day not after a day."""
        place = bisect_right(self.days, day)
        return self.days[place - 1] if place else None

    def as_arrays(self) -> tuple[str, str, str]:
        """Days since 1970, Unix seconds of openings and closings, as PostgreSQL's text of arrays.

        It reads a text of integers several times faster than we could send dates and instants.
        """
        return (
            array_text([(day - EPOCH).days for day in self.days]),
            array_text([int(opens.timestamp()) for opens, _ in self.spans]),
            array_text([int(closes.timestamp()) for _, closes in self.spans]),
        )


@lru_cache(maxsize=64)
def _working_days(calendar: str, until: date) -> WorkingDays:
    parsed = Calendar.model_validate_json(calendar)
    begin = date(until.year // 10 * 10 - 10, 1, 1)
    every_day = (begin + timedelta(number) for number in range((until - begin).days))
    known = [(day, span) for day in every_day if (span := parsed.span_of(day))]
    return WorkingDays(tuple(day for day, _ in known), tuple(span for _, span in known))


@lru_cache(maxsize=64)
def arrays_of(calendar: str, until: date) -> tuple[str, str, str]:
    """`WorkingDays.as_arrays` of a calendar's JSON; the same on nearly every call."""
    return _working_days(calendar, until).as_arrays()


def last_day_of_interest(slas: Iterable[TouchSla], today: date) -> date:
    """Behind it no touch is due: the longest interval away, a margin, the end of the year."""
    longest = max((sla.calendar_days for sla in slas), default=0)
    return date(today.year + 1, 1, 1) + timedelta(longest + MARGIN_DAYS)


def working_days(calendar: Calendar, slas: Iterable[TouchSla], today: date) -> WorkingDays:
    """The calendar's working days, as far ahead as one of the SLAs may ask for."""
    return _working_days(calendar.model_dump_json(), last_day_of_interest(slas, today))


def touch_due_on(
    sla: TouchSla,
    *,
    last_purchase: date,
    last_touch: date | None,
    days: WorkingDays,
    expected_on: date | None = None,
) -> date | None:
    """The working day on which a touch is due; None when nothing asks for one.

    Args:
        expected_on: When the client's habit lets expect the next purchase, if they have one.
    """
    if sla.same_working_day and (last_touch is None or last_touch < last_purchase):
        return days.first_from(last_purchase)
    due = [_by_interval(sla, last_purchase, last_touch, days)]
    if expected_on is not None and sla.before_expected is not None:
        due.append(days.last_until(expected_on - timedelta(sla.before_expected)))
        if due[1] is None or due[1] <= last_purchase or (last_touch and last_touch >= due[1]):
            due.pop()
    return min((day for day in due if day is not None), default=None)


def _by_interval(
    sla: TouchSla, last_purchase: date, last_touch: date | None, days: WorkingDays
) -> date | None:
    if sla.every is None:
        return None
    since = max(last_purchase, last_touch) if last_touch else last_purchase
    if sla.unit == "days":
        return days.first_from(since + timedelta(sla.every))
    return days.after(since, sla.every)
