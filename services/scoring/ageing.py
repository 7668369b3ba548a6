"""Recency ages by itself: a client crosses a boundary at its midnight because a row was due.

`scores.due_at` is the first instant at which the scores may change without any event: a recency
bound is reached, or the oldest purchase day leaves the period. Any number of workers may age; each
takes the due rows that no other holds.
"""

from datetime import datetime

from libs.shared.database import BY_KEYS, Connection
from libs.shared.events import Event
from libs.shared.timers import Timer, due_column
from services.scoring.score_keeping import keep, load_alone
from services.scoring.standing import Change

BATCH = 1000

_DUE = """
    SELECT client_id FROM scores WHERE due_at <= $1 ORDER BY due_at LIMIT $2
    FOR UPDATE SKIP LOCKED
"""


async def age_due_clients(tx: Connection, now: datetime) -> int:
    """Move clients over the boundaries that they have reached; at most `BATCH` of them."""
    await tx.execute(f"SELECT {BY_KEYS}")
    due = [row["client_id"] for row in await tx.fetch(_DUE, now, BATCH)]
    if not due:
        return 0
    rules, standings, _ = await load_alone(tx, due)  # locked already
    moves: list[tuple[Change, Event | None]] = []
    for standing in standings.values():
        moves += [(change, None) for change in standing.age(rules.day_of(now), rules)]
    await keep(tx, standings.values(), moves, rules)
    return len(due)


AGEING = Timer("ageing", due_column("scores"), age_due_clients, is_patient=True)
