"""Whether a manager is there: on shift, not absent, not sick, not on a pause, not gone offline.

Shifts are those that were started or planned, and the manager's own calendar in their own zone.
What is found holds until an instant that is told too, so that nobody has to look before it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.shared.calendars import Calendar, NeverOpen

HERE, OFF_SHIFT, ABSENT, SICK, PAUSED, OFFLINE, INACTIVE = "+", "o", "a", "s", "p", "h", "i"
NAMES = {
    HERE: "here",
    OFF_SHIFT: "off_shift",
    ABSENT: "absent",
    SICK: "sick",
    PAUSED: "paused",
    OFFLINE: "offline",
    INACTIVE: "inactive",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides whether somebody is there.

    Attributes:
        shifts: Begin and end; an end of None is open.
        absences: Begin, end and whether it is sickness.
        paused_at: The pause began; None: there is none.
        paused_until: When it ends by itself; None: when they say so.
        seen_at: The last sign of life of their workplace.
    """

    is_active: bool = True
    calendar: Calendar | None = None
    shifts: tuple[tuple[datetime, datetime | None], ...] = ()
    absences: tuple[tuple[datetime, datetime, bool], ...] = ()
    paused_at: datetime | None = None
    paused_until: datetime | None = None
    seen_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Presence:
    """Attributes: `until`: holds before this instant; None: until something is changed."""

    code: str
    until: datetime | None


def presence(facts: Facts, now: datetime, *, sign_holds: timedelta | None = None) -> Presence:
    """Whether somebody is there.

    Args:
        sign_holds: For how long a sign of life holds; None: none is needed.
    """
    if not facts.is_active:
        return Presence(INACTIVE, None)
    changes: list[datetime] = []
    code = _on_shift(facts, now, changes)
    if (
        facts.paused_at is not None
        and facts.paused_at <= now
        and (facts.paused_until is None or facts.paused_until > now)
    ):
        changes += [facts.paused_until] if facts.paused_until else []
        code = PAUSED if code == HERE else code
    if sign_holds is not None and code == HERE:
        gone = facts.seen_at + sign_holds if facts.seen_at else now
        if gone <= now:
            code = OFFLINE
        else:
            changes.append(gone)
    for begin, end, is_sick in facts.absences:
        if begin <= now < end:
            code = SICK if is_sick else ABSENT
        changes += [begin, end]
    return Presence(code, _first_after(now, changes))


def _on_shift(facts: Facts, now: datetime, changes: list[datetime]) -> str:
    code = OFF_SHIFT
    for begin, end in facts.shifts:
        if begin <= now and (end is None or now < end):
            code = HERE
        changes.append(begin)
        changes += [end] if end else []
    if facts.calendar is not None:
        closes = facts.calendar.open_until(now)
        if closes is not None:
            code = HERE
            changes.append(closes)
        else:
            changes += _opening(facts.calendar, now)
    return code


def _opening(calendar: Calendar, now: datetime) -> list[datetime]:
    try:
        return [calendar.next_opening(now)]
    except NeverOpen:
        return []


def _first_after(now: datetime, instants: Iterable[datetime]) -> datetime | None:
    return min((instant for instant in instants if instant > now), default=None)
