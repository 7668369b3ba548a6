"""Clients' segments, as scoring tells them: rules go by them, and a muted season by the same.

A client who moves on has their waiting leads looked at again at once: they may belong to another
team now, or be muted no more.
"""

from collections.abc import Sequence

from libs.shared.database import Connection
from libs.shared.events import SegmentChanged

_STORE = """
    INSERT INTO client_segments AS c (client_id, seq, segment)
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[]) AS told (client_id, seq, segment)
    ORDER BY client_id
    ON CONFLICT (client_id) DO UPDATE SET seq = excluded.seq, segment = excluded.segment
        WHERE c.seq < excluded.seq
    RETURNING client_id
"""
_LOOK_AGAIN = """
    UPDATE leads SET state = 'waiting', due_at = $2, round = 1, hops = 0, asked = '{}'
    WHERE lead_id IN (SELECT lead_id FROM leads WHERE client_id = ANY($1::uuid[])
        AND state IN ('queued', 'muted') FOR UPDATE SKIP LOCKED)
"""


async def note_segments(events: Sequence[SegmentChanged], tx: Connection) -> None:
    """Remember each client's newest segment."""
    newest: dict[object, SegmentChanged] = {}
    for event in events:
        known = newest.get(event.client_id)
        if known is None or known.seq < event.seq:
            newest[event.client_id] = event
    told = list(newest.values())
    moved = await tx.fetch(
        _STORE,
        [event.client_id for event in told],
        [event.seq for event in told],
        [event.new_segment for event in told],
    )
    if moved:
        await tx.execute(
            _LOOK_AGAIN,
            [row["client_id"] for row in moved],
            max(event.occurred_at for event in told),
        )
