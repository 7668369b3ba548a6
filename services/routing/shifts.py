"""Who is on shift: by a shift that was started or planned, or by the manager's own calendar.

When somebody comes on shift, the leads of the common queue are offered again, oldest first. Planned
shifts and calendars open by due rows.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import asyncpg
import orjson

from libs.shared.calendars import Calendar, NeverOpen
from libs.shared.database import Connection
from libs.shared.timers import Timer, due_column

BATCH = 500

_ACTIVE = """
    SELECT m.manager_id, m.last_turn, m.calendar, EXISTS (
        SELECT 1 FROM shifts AS s WHERE s.manager_id = m.manager_id
            AND s.starts_at <= $1 AND (s.ends_at IS NULL OR s.ends_at > $1)) AS has_shift
    FROM managers AS m WHERE m.is_active ORDER BY m.manager_id FOR UPDATE OF m
"""

DRAIN_QUEUE = """
    UPDATE leads SET state = 'waiting', due_at = {now}, round = 1, asked = '{{}}'
    WHERE state = 'queued'
"""
"""Offer the common queue anew; the offering timer takes the leads oldest first."""


async def on_shift(tx: Connection, now: datetime) -> Sequence[asyncpg.Record]:
    """Active managers on shift, their rows locked until the transaction ends.

    Locked because turns are given out: two workers that offer at once take their turns one after
    the other, and the round robin stays exact.
    """
    rows = await tx.fetch(_ACTIVE, now)
    return [row for row in rows if row["has_shift"] or is_open(row["calendar"], now)]


def is_open(calendar: dict[str, Any] | None, now: datetime) -> bool:
    """Whether a stored calendar is open."""
    return calendar is not None and _calendar(orjson.dumps(calendar)).is_open(now)


def next_opening(calendar: dict[str, Any] | None, now: datetime) -> datetime | None:
    """When a stored calendar opens next after an instant; None: never."""
    if calendar is None:
        return None
    try:
        return _calendar(orjson.dumps(calendar)).next_opening(now)
    except NeverOpen:
        return None


@lru_cache(maxsize=512)
def _calendar(stored: bytes) -> Calendar:
    return Calendar.model_validate_json(stored)


async def begin_planned_shifts(tx: Connection, now: datetime) -> int:
    """Planned shifts that have begun: offer them the common queue."""
    begun = await tx.fetch(
        "UPDATE shifts SET due_at = NULL WHERE shift_id IN (SELECT shift_id FROM shifts"
        " WHERE due_at <= $1 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING 1",
        now,
        BATCH,
    )
    if begun:
        await tx.execute(DRAIN_QUEUE.format(now="$1"), now)
    return len(begun)


async def open_calendars(tx: Connection, now: datetime) -> int:
    """Calendars that have opened: offer them the common queue, note when they open next."""
    rows = await tx.fetch(
        "SELECT manager_id, calendar FROM managers WHERE due_at <= $1 ORDER BY due_at LIMIT $2"
        " FOR UPDATE SKIP LOCKED",
        now,
        BATCH,
    )
    if rows:
        await tx.executemany(
            "UPDATE managers SET due_at = $2 WHERE manager_id = $1",
            [(row["manager_id"], next_opening(row["calendar"], now)) for row in rows],
        )
        await tx.execute(DRAIN_QUEUE.format(now="$1"), now)
    return len(rows)


SHIFT_BEGINNINGS = Timer("shift_beginnings", due_column("shifts"), begin_planned_shifts)
CALENDAR_OPENINGS = Timer("calendar_openings", due_column("managers"), open_calendars)
