"""The desk: the one place where leads are given out, so that turns and loads are exact.

Its row lock is the right to change loads and turns; whoever has it sees what everybody before did.
Its versions spare most of the reading: a process remembers the floor, and reads again what others
have changed since. A version is never given twice, so what was rolled back is never taken for true.
Whoever decides takes the remembered floor out and puts it back with the version that it is true of.

Locks are taken in this order: leads, the desk, loads and turns. Who has the desk never waits for a
lead; triggers change the desk's `roster` whenever a manager, a shift, an absence, a team or a rule
changes.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from libs.shared.calendars import Calendar
from libs.shared.database import Connection
from services.routing.choosing.floor import Floor, Seat
from services.routing.choosing.presence import Facts, presence
from services.routing.choosing.rule_set import Prepared, prepared

AHEAD = timedelta(days=2)  # shifts and absences further away need not be known
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DAYS_OF_MONTH = 30
RESULTS_HOLD = timedelta(minutes=5)
TOUCHES_HOLD = timedelta(minutes=1)

DESK = """UPDATE desk SET previous = version, version = nextval('desk_versions')
        {where} RETURNING previous, version, roster, current_database() AS place"""
"""Take the desk until the transaction ends."""
DESK_AS_SEEN = "version AS previous, version, roster, current_database() AS place"
"""The same of a desk that is only looked at."""
NEVER = 0  # no desk has this version

_MANAGERS = """
    SELECT m.manager_id, weight, capacity, hourly_limit, daily_limit, monthly_limit, languages,
        zones, skills::text AS skills, is_active, calendar::text AS calendar, paused_at,
        paused_until, seen_at
    FROM managers AS m LEFT JOIN loads AS l USING (manager_id)
    WHERE is_active OR l.open_leads > 0 ORDER BY m.manager_id
"""
_SHIFTS = """
    SELECT manager_id, starts_at, ends_at FROM shifts
    WHERE (ends_at IS NULL OR ends_at > $1) AND starts_at < $2 AND ($3::uuid[] IS NULL
        OR manager_id = ANY($3))
"""
_ABSENCES = """
    SELECT manager_id, starts_at, ends_at, is_sick FROM absences
    WHERE ends_at > $1 AND starts_at < $2 AND ($3::uuid[] IS NULL OR manager_id = ANY($3))
"""
_TEAMS = "SELECT t.team, m.manager_id FROM teams AS t LEFT JOIN team_members AS m USING (team)"
_LOADS = "SELECT manager_id, open_leads FROM loads"
_TURNS = "SELECT wheel, manager_id, passed, turn, stride FROM turns"
_RULES = "SELECT version, body::text AS body FROM rule_sets WHERE status = 'active'"
_KEEP_ROSTER = "INSERT INTO rosters VALUES ($1, $2) ON CONFLICT DO NOTHING"
_RECENT = """
    SELECT l.manager_id, o.offered_at FROM unnest($1::uuid[], $2::int[]) AS l (manager_id, most),
        LATERAL (SELECT offered_at FROM offers WHERE offers.manager_id = l.manager_id
            AND offered_at > $3 ORDER BY offered_at DESC LIMIT l.most) AS o
    ORDER BY o.offered_at
"""
_RESULTS = """
    SELECT manager_id, count(*) FILTER (WHERE NOT is_returning) AS cold,
        count(*) FILTER (WHERE NOT is_returning AND state = 'converted') AS cold_won,
        count(*) FILTER (WHERE is_returning) AS returning,
        count(*) FILTER (WHERE is_returning AND state = 'converted') AS returning_won
    FROM leads WHERE ended_at > $1 AND manager_id IS NOT NULL
        AND ended_because IS DISTINCT FROM 'spam' AND ended_because IS DISTINCT FROM 'error'
    GROUP BY manager_id
"""
_TOUCHES = """
    SELECT manager_id, count(*) AS touches FROM touches
    WHERE is_open AND manager_id IS NOT NULL GROUP BY manager_id
"""


@dataclass(slots=True)
class Known:
    """What a process remembers of the floor.

    Attributes:
        place: Whose floor: tests have many databases in one process.
        version: The desk's when it was so.
        until: When each seat's presence may change.
        changes_at: The first of these.
        recent: Instants of offers within the last day, of the seats that are limited.
    """

    place: str
    floor: Floor
    rules: Prepared
    roster: bytes
    roster_version: int
    version: int
    facts: list[Facts]
    until: list[datetime | None]
    changes_at: datetime | None
    recent: dict[int, deque[datetime]] = field(default_factory=dict)
    read_at: datetime | None = None
    sign_holds: timedelta | None = None
    results_at: datetime | None = None
    touches_at: datetime | None = None

    def count_offers(self, now: datetime) -> None:
        """Note the offers that a sitting has just given to those who are limited."""
        for place, recent in self.recent.items():
            recent.extend([now] * (self.floor.seats[place].in_day - len(recent)))


_remembered: dict[str, list[Known]] = {}
"""As many floors of a database as sittings were at work at once; mostly one."""


def remember(known: Known, version: int) -> None:
    """Keep a floor for the next sitting.

    Args:
        version: The desk's now; `NEVER`: what was decided last has not become true.
    """
    known.version = version
    if len(_remembered) > 50:  # only tests have that many databases
        _remembered.clear()
    _remembered.setdefault(known.place, []).append(known)


async def floor_now(
    tx: Connection,
    desk: asyncpg.Record,
    now: datetime,
    *,
    sign_holds: timedelta | None,
    results_days: int,
) -> Known:
    """The floor as it is, for whoever has the desk, or as it was seen with it. To be remembered.

    Args:
        desk: What taking the desk has returned, or what was seen of it.
        sign_holds: As in `presence`.
        results_days: How far back conversion is counted, where a rule goes by it.
    """
    remembered = _remembered.get(desk["place"])
    known = remembered.pop() if remembered else None
    if (
        known is None
        or known.roster_version != desk["roster"]
        or known.sign_holds != sign_holds
        or known.read_at is None
        or not known.read_at <= now < known.read_at + DAY
    ):
        known = await _read_all(tx, desk, now, sign_holds)
    elif known.version != desk["previous"]:
        await _read_state(tx, known, now)
    await _count_results(tx, known, now, results_days)
    await _count_touches(tx, known, now)
    _look_who_is_there(known, now)
    return known


async def _read_all(
    tx: Connection, desk: asyncpg.Record, now: datetime, sign_holds: timedelta | None
) -> Known:
    rows = await tx.fetch(_MANAGERS)
    rule_row = await tx.fetchrow(_RULES)
    assert rule_row is not None  # noqa: S101  # the migration puts one there, one is always active
    teams: dict[str, list[UUID]] = defaultdict(list)
    for row in await tx.fetch(_TEAMS):
        teams[row["team"]] += [row["manager_id"]] if row["manager_id"] else []
    floor = Floor([seat_of(row) for row in rows], teams)
    body = orjson.dumps(floor.roster())
    known = Known(
        place=desk["place"],
        floor=floor,
        rules=prepared(rule_row["version"], rule_row["body"]),
        roster=blake2b(body, digest_size=16).digest(),
        roster_version=desk["roster"],
        version=NEVER,
        facts=await facts_of(tx, rows, now),
        until=[now] * len(rows),
        changes_at=now,
        read_at=now,
        sign_holds=sign_holds,
    )
    await tx.execute(_KEEP_ROSTER, known.roster, body)
    await _read_state(tx, known, now)
    return known


async def _read_state(tx: Connection, known: Known, now: datetime) -> None:
    """Read what every sitting changes: loads, turns, offers of those who are limited."""
    floor = known.floor
    loads = {row["manager_id"]: row["open_leads"] for row in await tx.fetch(_LOADS)}
    for seat in floor.seats:
        seat.load = loads.get(seat.manager_id, 0)
    floor.wheels = {}
    for row in await tx.fetch(_TURNS):
        place = floor.place.get(row["manager_id"])
        if place is None:
            continue
        wheel = floor.wheel(row["wheel"])
        wheel.passed[place], wheel.turns[place] = row["passed"], row["turn"]
        wheel.reached = max(wheel.reached, row["passed"] - row["stride"])
        wheel.turn = max(wheel.turn, row["turn"])
    limited = {
        place: max(seat.hourly or 0, seat.daily or 0)
        for place, seat in enumerate(floor.seats)
        if seat.hourly is not None or seat.daily is not None
    }
    known.recent = {place: deque() for place in limited}
    if limited:
        ids = [floor.seats[place].manager_id for place in limited]
        for row in await tx.fetch(_RECENT, ids, list(limited.values()), now - DAY):
            known.recent[floor.place[row["manager_id"]]].append(row["offered_at"])


async def _count_results(tx: Connection, known: Known, now: datetime, days: int) -> None:
    """Conversion counts, where a rule goes by them; a few minutes old at most."""
    if "result" not in known.rules.kinds:
        return
    if known.results_at is not None and known.results_at <= now < known.results_at + RESULTS_HOLD:
        return
    for row in await tx.fetch(_RESULTS, now - timedelta(days=days)):
        place = known.floor.place.get(row["manager_id"])
        if place is not None:
            known.floor.seats[place].results = (
                row["cold"],
                row["cold_won"],
                row["returning"],
                row["returning_won"],
            )
    known.floor.counted()
    known.results_at = now


async def _count_touches(tx: Connection, known: Known, now: datetime) -> None:
    """Open touches, where a rule goes by load; a minute old at most."""
    if "load" not in known.rules.kinds:
        return
    if known.touches_at is not None and known.touches_at <= now < known.touches_at + TOUCHES_HOLD:
        return
    touches = {row["manager_id"]: row["touches"] for row in await tx.fetch(_TOUCHES)}
    for seat in known.floor.seats:
        seat.touches = touches.get(seat.manager_id, 0)
    known.floor.counted()
    known.touches_at = now


def _look_who_is_there(known: Known, now: datetime) -> None:
    if known.changes_at is not None and known.changes_at <= now:
        for place, until in enumerate(known.until):
            if until is not None and until <= now:
                found = presence(known.facts[place], now, sign_holds=known.sign_holds)
                known.floor.seats[place].presence = found.code
                known.until[place] = found.until
        known.changes_at = min(filter(None, known.until), default=None)
    for place, recent in known.recent.items():
        while recent and recent[0] <= now - DAY:
            recent.popleft()
        seat = known.floor.seats[place]
        seat.in_day = len(recent)
        seat.in_hour = sum(1 for at in recent if at > now - HOUR)


def seat_of(row: asyncpg.Record) -> Seat:
    """A manager's row as a seat; who is there and what they hold is not in it."""
    daily = row["daily_limit"]
    if row["monthly_limit"] is not None:
        a_day = -(-row["monthly_limit"] // DAYS_OF_MONTH)  # 45 a month are 2 a day
        daily = a_day if daily is None else min(daily, a_day)
    return Seat(
        manager_id=row["manager_id"],
        weight=row["weight"],
        capacity=row["capacity"],
        hourly=row["hourly_limit"],
        daily=daily,
        languages=frozenset(map(str.casefold, row["languages"])),
        zones=frozenset(map(str.casefold, row["zones"])),
        skills={k.casefold(): level for k, level in orjson.loads(row["skills"]).items()},
    )


async def facts_of(
    tx: Connection, managers: Sequence[asyncpg.Record], now: datetime
) -> list[Facts]:
    """What decides whether these managers are there."""
    ids = None if len(managers) > 20 else [row["manager_id"] for row in managers]
    shifts: dict[UUID, list[Any]] = defaultdict(list)
    for row in await tx.fetch(_SHIFTS, now, now + AHEAD, ids):
        shifts[row["manager_id"]].append((row["starts_at"], row["ends_at"]))
    absences: dict[UUID, list[Any]] = defaultdict(list)
    for row in await tx.fetch(_ABSENCES, now, now + AHEAD, ids):
        absences[row["manager_id"]].append((row["starts_at"], row["ends_at"], row["is_sick"]))
    return [
        Facts(
            is_active=row["is_active"],
            calendar=calendar_of(row["calendar"]),
            shifts=tuple(shifts[row["manager_id"]]),
            absences=tuple(absences[row["manager_id"]]),
            paused_at=row["paused_at"],
            paused_until=row["paused_until"],
            seen_at=row["seen_at"],
        )
        for row in managers
    ]


@lru_cache(maxsize=1024)
def calendar_of(stored: str | None) -> Calendar | None:
    """A calendar as it is stored."""
    if stored is None or stored == "null":  # how it was stored once
        return None
    return Calendar.model_validate_json(stored)
