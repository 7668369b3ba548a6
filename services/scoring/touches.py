"""When somebody last spoke with a client: what the queue counts from.

Recorded and held interactions count as touches, planned ones do not. An older touch that is heard
late changes nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from libs.shared.database import Connection
from libs.shared.events import InteractionHeld, InteractionRecorded

NOT_A_TOUCH = frozenset({"note"})  # nobody spoke with the client

_TOUCH = """
    INSERT INTO touches (client_id, last_touch_at)
    SELECT client_id, max(at) FROM unnest($1::uuid[], $2::timestamptz[]) AS t (client_id, at)
    GROUP BY client_id ORDER BY client_id
    ON CONFLICT (client_id) DO UPDATE
        SET last_touch_at = greatest(touches.last_touch_at, excluded.last_touch_at)
"""


async def note_recorded_touches(events: Sequence[InteractionRecorded], tx: Connection) -> None:
    """Count what happened between a client and us."""
    await _note(tx, [(e.client_id, e.happened_at) for e in events if e.kind not in NOT_A_TOUCH])


async def note_held_meetings(events: Sequence[InteractionHeld], tx: Connection) -> None:
    """Count meetings and calls that took place."""
    await _note(tx, [(e.client_id, e.held_at) for e in events])


async def _note(tx: Connection, touches: Sequence[tuple[UUID, datetime]]) -> None:
    if touches:
        clients, instants = zip(*touches, strict=True)
        await tx.execute(_TOUCH, list(clients), list(instants))
