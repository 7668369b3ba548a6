"""How much of a manager's day belongs to the base, and how much of that is used up.

The slots are parts of the day apart from hot deals; divided by what a call takes they give the
day's number of touches. Every touch of the day counts, whoever's client it was.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared.calendars import WEEKDAYS, Calendar, Hours
from services.scoring.rules import Rules
from services.scoring.touches.policy import QueuePolicy

_DONE = text("SELECT touches FROM manager_days WHERE manager_id = :manager_id AND day = :day")


class Slot(BaseModel):
    """A part of the day that is meant for the base."""

    begins_at: datetime
    ends_at: datetime


class Budget(BaseModel):
    """A manager's base work of one day.

    Attributes:
        slots: Empty on a day off.
        touches: How many fit into the slots.
        done: How many there were today; may be more.
    """

    slots: list[Slot]
    touches: int
    done: int

    @property
    def is_used_up(self) -> bool:
        return self.done >= self.touches


async def budget_of(
    session: AsyncSession, manager_id: UUID, policy: QueuePolicy, rules: Rules, now: datetime
) -> Budget:
    """The base work of a manager's today."""
    today = rules.day_of(now)
    done = await session.scalar(_DONE, {"manager_id": manager_id, "day": today})
    is_open = bool(rules.rule_set.calendar.hours_of(today))
    slots = slots_on(now, policy.slots, rules.zone) if is_open else []
    return Budget(slots=slots, touches=room_for(slots, policy.minutes_a_touch), done=done or 0)


def slots_on(now: datetime, hours: Iterable[Hours], zone: ZoneInfo) -> list[Slot]:
    """The slots of the day in which an instant lies, in their order."""
    today = now.astimezone(zone).date()
    slots = []
    for slot in sorted(hours, key=lambda each: each.opens_at):
        calendar = Calendar(zone=zone.key, week=dict.fromkeys(WEEKDAYS, (slot,)))
        if span := calendar.span_of(today):
            slots.append(Slot(begins_at=span[0], ends_at=span[1]))
    return slots


def room_for(slots: Iterable[Slot], minutes_a_touch: int) -> int:
    """How many touches fit; a slot's rest is not carried into the next."""
    each = timedelta(minutes=minutes_a_touch)
    return sum((slot.ends_at - slot.begins_at) // each for slot in slots)
