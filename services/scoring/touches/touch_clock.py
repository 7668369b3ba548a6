"""The clock of touches: the working day of a touch begins, and ends without anybody having spoken.

Both instants are due rows. Who is planned for a day that is over already is overdue at once and is
told of once. A crash leaves the rows due; nothing is said twice.
"""

from datetime import datetime

from libs.shared import outbox
from libs.shared.database import Connection
from libs.shared.events import TouchDue, TouchOverdue
from libs.shared.timers import Timer, due_column

BATCH = 200  # each is an event to be made: 3 ms in which this process hears nothing

_TURN = """
    UPDATE touch_plans AS p SET
        state = CASE WHEN p.closes_at <= $1 THEN 'overdue' ELSE 'due' END,
        due_at = CASE WHEN p.closes_at <= $1 THEN NULL ELSE p.closes_at END
    WHERE p.client_id = ANY(ARRAY(
        SELECT client_id FROM touch_plans WHERE due_at <= $1
        ORDER BY due_at, client_id LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING p.client_id, p.touch_no, p.owner_id, p.segment, p.priority, p.due_on, p.state,
        CASE WHEN p.state = 'due' THEN p.opens_at ELSE p.closes_at END AS turned_at
"""


async def turn_due_touches(tx: Connection, now: datetime) -> int:
    """Say whose day has begun and whose is over; at most `BATCH`."""
    rows = await tx.fetch(_TURN, now, BATCH)
    kinds: dict[str, type[TouchDue] | type[TouchOverdue]] = {
        "due": TouchDue,
        "overdue": TouchOverdue,
    }
    await outbox.add_all(
        tx,
        [
            kinds[row["state"]](
                client_id=row["client_id"],
                touch_no=row["touch_no"],
                manager_id=row["owner_id"],
                segment=row["segment"],
                priority=row["priority"],
                due_on=row["due_on"],
                occurred_at=row["turned_at"],
            )
            for row in rows
        ],
    )
    return len(rows)


TOUCH_CLOCK = Timer("touch_clock", due_column("touch_plans"), turn_due_touches, is_patient=True)
