"""Somebody has spoken with a client: the next touch is planned from then on.

Recorded and held interactions count as touches, planned ones do not. An older touch that is heard
late changes nothing but the count of its manager's day.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from libs.shared.database import Connection
from libs.shared.events import InteractionHeld, InteractionRecorded
from services.scoring.rules import Rules
from services.scoring.rules_in_force import rules_in_force
from services.scoring.touches.planning import plan

NOT_A_TOUCH = frozenset({"note", "review"})  # nobody spoke with the client

_TOUCH = """
    INSERT INTO touches AS t (client_id, last_touch_at, last_touch_by)
    SELECT DISTINCT ON (client_id) client_id, at, manager
    FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[]) AS told (client_id, at, manager)
    ORDER BY client_id, at DESC
    ON CONFLICT (client_id) DO UPDATE SET last_touch_at = excluded.last_touch_at,
        last_touch_by = excluded.last_touch_by
    WHERE t.last_touch_at < excluded.last_touch_at
"""
_PROMISE = """
    UPDATE touches AS t SET promised = p.text, promised_until = p.until, promised_at = p.at
    FROM (SELECT DISTINCT ON (client_id) * FROM unnest($1::uuid[], $2::timestamptz[], $3::text[],
        $4::date[]) AS told (client_id, at, text, until) ORDER BY client_id, at DESC) AS p
    WHERE t.client_id = p.client_id AND (t.promised_at IS NULL OR t.promised_at <= p.at)
"""
_COUNT = """
    INSERT INTO manager_days AS m (manager_id, day, touches)
    SELECT * FROM unnest($1::uuid[], $2::date[], $3::int[]) AS t (manager_id, day, touches)
    ORDER BY manager_id, day
    ON CONFLICT (manager_id, day) DO UPDATE SET touches = m.touches + excluded.touches
"""


class Touch(NamedTuple):
    """Somebody spoke with a client."""

    client_id: UUID
    at: datetime
    manager_id: UUID | None


async def note_recorded_touches(events: Sequence[InteractionRecorded], tx: Connection) -> None:
    """Count what happened between a client and us, and keep what was promised."""
    spoken = [event for event in events if event.kind not in NOT_A_TOUCH]
    now = max(event.occurred_at for event in events)
    await _note(tx, [Touch(e.client_id, e.happened_at, e.manager_id) for e in spoken], now)
    promises = [(e.client_id, e.happened_at, p.text, p.due_on) for e in spoken for p in e.promises]
    if promises:
        await tx.execute(_PROMISE, *map(list, zip(*promises, strict=True)))


async def note_held_meetings(events: Sequence[InteractionHeld], tx: Connection) -> None:
    """Count meetings and calls that took place."""
    now = max(event.occurred_at for event in events)
    await _note(tx, [Touch(e.client_id, e.held_at, e.manager_id) for e in events], now)


async def _note(tx: Connection, touches: Sequence[Touch], now: datetime) -> None:
    if not touches:
        return
    rules = await rules_in_force(tx)
    await tx.execute(_TOUCH, *map(list, zip(*touches, strict=True)))
    await _count(tx, touches, rules)
    await plan(tx, {touch.client_id for touch in touches}, rules, now)


async def _count(tx: Connection, touches: Sequence[Touch], rules: Rules) -> None:
    counted = Counter((t.manager_id, rules.day_of(t.at)) for t in touches if t.manager_id)
    if counted:
        managers, days = zip(*counted, strict=True)
        await tx.execute(_COUNT, list(managers), list(days), list(counted.values()))
