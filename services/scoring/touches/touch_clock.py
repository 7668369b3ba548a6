"""The clock of touches: the working day of a touch begins, and ends without anybody having spoken.

Both instants are due rows. Who is planned for a day that is over already is overdue at once and is
told of once. A crash leaves the rows due; nothing is said twice. The events are written by the
statement that turns the rows: made in Python, 200 of them stood 3 ms in the way of every deal.
"""

from datetime import datetime

from libs.shared import context, failpoints
from libs.shared.database import Connection
from libs.shared.events import TouchDue, TouchOverdue
from libs.shared.outbox import SHARDS
from libs.shared.timers import Timer, due_column
from services.scoring.touches.planning import PIECE, RESTS

BATCH = 200
BACKLOG = 2000  # where fewer are due they are turned piece by piece, as they were planned

# Held to `outbox.row_of` of the events by test.
_TURN = """
    WITH turned AS (
        UPDATE touch_plans AS p SET
            state = CASE WHEN p.closes_at <= $1 THEN 'overdue' ELSE 'due' END,
            due_at = CASE WHEN p.closes_at <= $1 THEN NULL ELSE p.closes_at END
        WHERE p.client_id = ANY(ARRAY(
            SELECT client_id FROM touch_plans WHERE due_at <= $1
            ORDER BY due_at, client_id LIMIT (
                SELECT CASE WHEN count(*) < $10 THEN $11::int ELSE $2::int END
                FROM (SELECT FROM touch_plans WHERE due_at <= $1 LIMIT $10) AS due
            ) FOR UPDATE SKIP LOCKED))
        RETURNING p.client_id, p.touch_no, p.owner_id, p.segment, p.priority, p.due_on,
            CASE WHEN p.state = 'due' THEN $4 ELSE $5 END AS type,
            CASE WHEN p.state = 'due' THEN p.opens_at ELSE p.closes_at END AS turned_at
    ), said AS (
        INSERT INTO outbox (shard, event_id, topic, key, type, time, data, correlation_id,
            causation_id, traceparent)
        SELECT crc32(convert_to(client_id::text, 'UTF8')) % $6::int, uuidv7(), $3, client_id::text,
            type, turned_at, convert_to(concat(
                '{"occurred_at":"',
                to_char(turned_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                '","client_id":"', client_id, '","touch_no":', touch_no,
                ',"manager_id":', coalesce('"' || owner_id || '"', 'null'),
                ',"segment":', to_json(segment), ',"priority":', priority,
                ',"due_on":"', to_char(due_on, 'YYYY-MM-DD'), '"}'), 'UTF8'),
            $7, $8::uuid, $9
        FROM turned ORDER BY turned_at, client_id
    )
    SELECT count(*) FROM turned
"""


async def turn_due_touches(tx: Connection, now: datetime) -> int:
    """Say whose day has begun and whose is over; at most `BATCH`."""
    thread = context.current()
    types = TouchDue.wire_type(), TouchOverdue.wire_type()
    about = thread.correlation_id, thread.causation_id, thread.traceparent
    turned: int = await tx.fetchval(
        _TURN, now, BATCH, TouchDue.topic, *types, SHARDS, *about, BACKLOG, PIECE
    )
    failpoints.reach("outbox.added")
    return turned


TOUCH_CLOCK = Timer(
    "touch_clock", due_column("touch_plans"), turn_due_touches, is_patient=True, rests=RESTS
)
