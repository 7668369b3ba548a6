"""How much of a manager's day belongs to the base, and how much of that is used up.

The slots are parts of the day apart from hot deals; divided by what a call takes they give the
day's number of touches. Every touch of the day counts, whoever's client it was.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict

from libs.shared.calendars import WEEKDAYS, Calendar, Hours
from libs.shared.database import Connection
from services.scoring.touches.terms import Terms

_DONE = "SELECT touches FROM manager_days WHERE manager_id = $1 AND day = $2"


class Slot(BaseModel):
    """A part of the day that is meant for the base."""

    model_config = ConfigDict(frozen=True)

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


async def touches_done(connection: Connection, manager_id: UUID, day: date) -> int:
    """How many touches of a manager were heard on a day."""
    done: int | None = await connection.fetchval(_DONE, manager_id, day)
    return done or 0


def budget_on(terms: Terms, now: datetime, done: int = 0) -> Budget:
    """A manager's base work of today, so much of it done."""
    rules, policy = terms.rules, terms.policy
    is_open = bool(rules.rule_set.calendar.hours_of(rules.day_of(now)))
    slots = slots_on(now, policy.slots, rules.zone) if is_open else []
    return Budget(slots=slots, touches=room_for(slots, policy.minutes_a_touch), done=done)


def slots_on(now: datetime, hours: Sequence[Hours], zone: ZoneInfo) -> list[Slot]:
    """The slots of the day in which an instant lies, in their order."""
    return list(_slots_of(now.astimezone(zone).date(), tuple(hours), zone))


@lru_cache(maxsize=100)
def _slots_of(day: date, hours: tuple[Hours, ...], zone: ZoneInfo) -> tuple[Slot, ...]:
    slots = []
    for slot in sorted(hours, key=lambda each: each.opens_at):
        calendar = Calendar(zone=zone.key, week=dict.fromkeys(WEEKDAYS, (slot,)))
        if span := calendar.span_of(day):
            slots.append(Slot(begins_at=span[0], ends_at=span[1]))
    return tuple(slots)


def room_for(slots: Iterable[Slot], minutes_a_touch: int) -> int:
    """How many touches fit; a slot's rest is not carried into the next."""
    each = timedelta(minutes=minutes_a_touch)
    return sum((slot.ends_at - slot.begins_at) // each for slot in slots)
