"""Moves from segment to segment: a line of the client's history and a segment.changed of each."""

from collections.abc import Sequence
from typing import TypeAlias

import orjson

from libs.shared import context, outbox
from libs.shared.bulk import append, insert_arrays
from libs.shared.database import Connection
from libs.shared.events import Event, SegmentChanged
from libs.shared.ids import new_quick_id
from services.scoring.rfm import Scores
from services.scoring.standing import Change

Moves: TypeAlias = Sequence[tuple[Change, Event | None]]
"""Changes, each with the event that caused it; None: time alone."""

HISTORY_TYPES = {
    "client_id": "uuid",
    "seq": "int",
    "old_segment": "text",
    "new_segment": "text",
    "recency_score": "smallint",
    "frequency_score": "smallint",
    "monetary_score": "smallint",
    "rule_version": "int",
    "as_of": "date",
    "changed_at": "timestamptz",
    "reason": "text",
}
_HISTORY = tuple(HISTORY_TYPES)
_SEGMENT_CHANGED = SegmentChanged.wire_type()
_NOBODY = Scores(None, None, None)  # type: ignore[arg-type]  # a client without scores


async def say(tx: Connection, moves: Moves) -> None:
    """Write moves into the history and the outbox."""
    if moves:
        await append(tx, "segment_history", _HISTORY, [history_row(change) for change, _ in moves])
        await outbox.add_rows(tx, [outbox_row(change, cause) for change, cause in moves])


def said_with(first: int) -> str:
    """The same as a part of a statement, for a few: its parameters from `first` on are arrays.

    Its part `kept` writes the clients' scores: no event of a client may be numbered before.
    """
    told = insert_arrays("outbox", outbox.COLUMN_TYPES, first + len(HISTORY_TYPES))
    return f"""moved AS ({insert_arrays("segment_history", HISTORY_TYPES, first)}),
        said AS ({told} WHERE (SELECT count(*) FROM kept) > 0)"""


def said_arrays(moves: Moves) -> list[Sequence[object]]:
    """The arrays of `said_with`; there must be moves."""
    history = zip(*(history_row(change) for change, _ in moves), strict=True)
    told = zip(*(outbox_row(change, cause) for change, cause in moves), strict=True)
    return [*history, *told]


def history_row(change: Change) -> tuple[object, ...]:
    """Values of `HISTORY_TYPES`."""
    client_id, seq, old, new, scores, version, as_of, at, reason = change
    recency, frequency, monetary = scores or _NOBODY
    return (client_id, seq, old, new, recency, frequency, monetary, version, as_of, at, reason)


def outbox_row(change: Change, cause: Event | None) -> outbox.Row:
    """The row of the change's segment.changed, caused by an event or by time alone.

    Written out because making and validating the event takes four times as long, and nearly
    every purchase passes here. A test holds it to `outbox.row_of` of the validated event.
    """
    client_id, seq, old, new, scores, version, as_of, at, reason = change
    recency, frequency, monetary = scores or _NOBODY
    key = str(client_id)
    data = orjson.dumps(
        {
            "occurred_at": at,
            "client_id": key,
            "seq": seq,
            "old_segment": old,
            "new_segment": new,
            "recency_score": recency,
            "frequency_score": frequency,
            "monetary_score": monetary,
            "rule_version": version,
            "as_of": as_of,
            "reason": reason,
        },
        option=orjson.OPT_UTC_Z,
    )
    thread = (cause.thread if cause else None) or context.current()
    return (
        outbox.shard_of(key),
        new_quick_id(),
        SegmentChanged.topic,
        SegmentChanged.current_topic,
        key,
        _SEGMENT_CHANGED,
        at,
        data,
        thread.correlation_id,
        cause.event_id if cause else thread.causation_id,
        thread.traceparent,
    )
