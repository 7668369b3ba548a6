"""Managers' touches, as scoring tells them: a part of what they have to do.

Only the newest touch of a client counts, and once it has ended it stays ended, in whatever order
that is heard. Where leads are given by load, open touches are load (`ClaimPolicy`). A client who
changes hands meanwhile counts for whoever it was due for until that touch ends.
"""

from collections.abc import Sequence

from libs.shared.database import Connection
from libs.shared.events import TouchDue, TouchEnded, TouchOverdue

_NOTE = """
    INSERT INTO touches AS t (client_id, touch_no, manager_id, is_open)
    SELECT DISTINCT ON (client_id) client_id, touch_no, manager_id, $4
    FROM unnest($1::uuid[], $2::int[], $3::uuid[]) AS told (client_id, touch_no, manager_id)
    ORDER BY client_id, touch_no DESC
    ON CONFLICT (client_id) DO UPDATE SET touch_no = excluded.touch_no,
        manager_id = excluded.manager_id, is_open = excluded.is_open
    WHERE t.touch_no < excluded.touch_no
        OR t.touch_no = excluded.touch_no AND t.is_open AND NOT excluded.is_open
"""


async def note_due_touches(
    events: Sequence[TouchDue] | Sequence[TouchOverdue], tx: Connection
) -> None:
    """Somebody has to speak with these clients."""
    await _note(events, tx, is_open=True)


async def note_ended_touches(events: Sequence[TouchEnded], tx: Connection) -> None:
    """Somebody has, or need not any more."""
    await _note(events, tx, is_open=False)


async def _note(
    events: Sequence[TouchDue | TouchOverdue | TouchEnded], tx: Connection, *, is_open: bool
) -> None:
    await tx.execute(
        _NOTE,
        [event.client_id for event in events],
        [event.touch_no for event in events],
        [event.manager_id for event in events],
        is_open,
    )
