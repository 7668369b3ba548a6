"""When a client has to be spoken with: by segment, on the company's working days.

A touch is due so long after the last touch, or after the last purchase where nobody has spoken with
the client since. A segment may also ask for a touch on the very working day of each purchase (the
next one, where the purchase was made on a day off).

Source: requirements S-02, S-04, section 12.1: A the same working day, B every 10 working days, C
weekly.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from libs.shared.calendars import Calendar

LOOK_BACK_DAYS = 3700  # who was last spoken with longer ago is late by all means
MOST_WORKING_DAYS = 366


class TouchSla(BaseModel):
    """How soon a segment's clients are to be spoken with.

    Attributes:
        same_working_day: After each purchase, on its working day.
        every: So many days after the last touch or purchase; null: only after purchases.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    same_working_day: bool = False
    every: Annotated[int, Field(strict=True, ge=1, le=3660)] | None = None
    unit: Literal["days", "working_days"] = "days"

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.every is None and not self.same_working_day:
            raise ValueError("a touch SLA says when a touch is due")
        if self.unit == "working_days" and (self.every or 0) > MOST_WORKING_DAYS:
            raise ValueError(f"at most {MOST_WORKING_DAYS} working days")
        return self


@dataclass(frozen=True, slots=True)
class WorkingDays:
    """The working days around a day, ascending, to count in. Behind the last one none is known."""

    days: Sequence[date]

    def first_from(self, day: date) -> date:
        """The first working day not before a day."""
        return self.days[min(bisect_left(self.days, day), len(self.days) - 1)]

    def after(self, day: date, count: int) -> date:
        """The working day that comes so many working days after a day."""
        return self.days[min(bisect_right(self.days, day) + count, len(self.days)) - 1]


@lru_cache(maxsize=64)
def _working_days(calendar: str, today: date) -> WorkingDays:
    parsed = Calendar.model_validate_json(calendar)
    days: list[date] = []
    ahead = 0
    for number in range(3 * LOOK_BACK_DAYS):
        day = today + timedelta(number - LOOK_BACK_DAYS)
        if parsed.hours_of(day):
            days.append(day)
            ahead += day > today
        if ahead > MOST_WORKING_DAYS:
            break
    return WorkingDays(tuple(days))


def working_days(calendar: Calendar, today: date) -> WorkingDays:
    """The calendar's working days: ten years back, and ahead as many as an SLA may ask for."""
    return _working_days(calendar.model_dump_json(), today)


def touch_due_on(
    sla: TouchSla, *, last_purchase: date, last_touch: date | None, days: WorkingDays
) -> date | None:
    """The day on which a touch is due; None when nothing asks for one."""
    if sla.same_working_day and (last_touch is None or last_touch < last_purchase):
        return days.first_from(last_purchase)
    if sla.every is None:
        return None
    since = max(last_purchase, last_touch) if last_touch else last_purchase
    if sla.unit == "days":
        return since + timedelta(sla.every)
    return days.after(since, sla.every)
