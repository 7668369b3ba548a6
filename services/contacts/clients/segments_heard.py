"""The segment on a card, as scoring tells it; thousands of moves in one statement."""

from collections.abc import Sequence
from uuid import UUID

from libs.shared.database import Connection
from libs.shared.events import SegmentChanged

_STORE = """
    INSERT INTO client_segments AS known (client_id, segment, seq, changed_at)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::timestamptz[])
    ON CONFLICT (client_id) DO UPDATE
    SET segment = excluded.segment, seq = excluded.seq, changed_at = excluded.changed_at
    WHERE known.seq < excluded.seq
"""


async def show_segments(moves: Sequence[SegmentChanged], tx: Connection) -> None:
    """Keep each client's last segment; a move that is older than the known one changes nothing."""
    last: dict[UUID, SegmentChanged] = {}
    for move in moves:
        known = last.get(move.client_id)
        if known is None or known.seq < move.seq:
            last[move.client_id] = move
    # In the order of ids: two workers with the same clients would otherwise deadlock.
    ordered = [last[client_id] for client_id in sorted(last)]
    await tx.execute(
        _STORE,
        [move.client_id for move in ordered],
        [move.new_segment for move in ordered],
        [move.seq for move in ordered],
        [move.occurred_at for move in ordered],
    )
