"""The common queue: leads that found nobody. They are tried again, oldest first.

They are offered anew when somebody comes, when somebody has room again, and after a while in any
case, so that one manager alone is no dead end. Muted leads are looked at again the same way.
"""

from datetime import datetime

from libs.shared.database import Connection
from libs.shared.timers import Timer

BATCH = 500

_WAIT = "state = 'waiting', due_at = $1, round = 1, hops = 0, asked = '{}'"
# What is locked is being taken by somebody; whoever has the desk must not wait for it.
_DRAIN = f"""
    UPDATE leads SET {_WAIT} WHERE lead_id IN (SELECT lead_id FROM leads WHERE state = 'queued'
        FOR UPDATE SKIP LOCKED)
"""
_AGAIN = f"""
    UPDATE leads SET {_WAIT} WHERE lead_id = ANY(ARRAY(SELECT lead_id FROM leads
        WHERE state IN ('queued', 'muted') AND due_at <= $1
        ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED)) RETURNING 1
"""
_OLDEST = f"""
    UPDATE leads SET {_WAIT} WHERE lead_id = ANY(ARRAY(
        SELECT lead_id FROM leads WHERE state = 'queued'
        ORDER BY received_at, lead_id LIMIT $2 FOR UPDATE SKIP LOCKED))
"""


async def drain(tx: Connection, now: datetime) -> None:
    """Offer the whole queue anew: somebody has come."""
    await tx.execute(_DRAIN, now)


async def draw(tx: Connection, now: datetime, count: int) -> None:
    """Offer the oldest of the queue anew: somebody has room again."""
    if count:
        await tx.execute(_OLDEST, now, count)


async def try_again(tx: Connection, now: datetime) -> int:
    """Offer anew what has waited long enough; at most `BATCH`."""
    return len(await tx.fetch(_AGAIN, now, BATCH))


TRYING_AGAIN = Timer(
    "trying_again",
    "SELECT min(due_at) FROM leads WHERE state IN ('queued', 'muted') AND due_at IS NOT NULL",
    try_again,
    is_patient=True,
)
