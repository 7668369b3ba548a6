"""The outbox: an event is committed with the state it tells of, and sent afterwards.

`add` and `add_all` write into the caller's transaction. The caller must hold the lock of the
aggregate's row (or have inserted it) by then: an id is drawn when the row is written, so a key's
events would otherwise be able to overtake each other. The relay reads each shard in id order,
sends, waits until the broker has every message, and deletes. A crash between sending and deleting
sends again; subscribers know the repeat by its id. There is no cursor: a row that becomes visible
late is simply still there.
"""

import zlib
from collections.abc import Sequence
from typing import TypeAlias

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared import context, failpoints
from libs.shared.bulk import append
from libs.shared.database import Connection
from libs.shared.events import Event

SHARDS = 8  # fixed for ever: rows written under another number would change their shard

COLUMN_TYPES = {
    "shard": "smallint",
    "event_id": "uuid",
    "topic": "text",
    "also_topic": "text",
    "key": "text",
    "type": "text",
    "time": "timestamptz",
    "data": "bytea",
    "correlation_id": "text",
    "causation_id": "uuid",
    "traceparent": "text",
}
COLUMNS = tuple(COLUMN_TYPES)

SENT_COLUMNS = ("shard", "id", *COLUMNS[1:], "extra")
"""What the relay needs of a row, in its order."""

Row: TypeAlias = tuple[object, ...]
"""Values of `COLUMNS`."""

_INSERT_ONE = text(
    f"INSERT INTO outbox ({', '.join(COLUMNS)})"
    f" VALUES ({', '.join(':' + name for name in COLUMNS)})"
)


def shard_of(key: str) -> int:
    """The shard of a key; the same in every process and version."""
    return zlib.crc32(key.encode()) % SHARDS


async def add(session: AsyncSession, *events: Event) -> None:
    """Put events into the session's transaction, after the state they tell of.

    What the session has not written yet is flushed first, so the aggregate's row is locked by us
    before the event's id is drawn.
    """
    await session.flush()
    for event in events:
        await session.execute(_INSERT_ONE, dict(zip(COLUMNS, row_of(event), strict=True)))
    failpoints.reach("outbox.added")


async def add_all(connection: Connection, events: Sequence[Event]) -> None:
    """Put many events into the connection's transaction at once, in their order.

    The transaction must have locked or inserted the aggregates already.
    """
    if events:
        await add_rows(connection, [row_of(event) for event in events])


async def add_rows(connection: Connection, rows: Sequence[Row]) -> None:
    """`add_all` for events whose rows were made elsewhere."""
    await append(connection, "outbox", COLUMNS, rows)
    failpoints.reach("outbox.added")


def row_of(event: Event) -> Row:
    """The outbox row of an event."""
    key = event.key
    thread = event.thread or context.current()
    return (
        shard_of(key),
        event.event_id,
        event.topic,
        event.current_topic,
        key,
        event.wire_type(),
        event.occurred_at,
        event.data(),
        thread.correlation_id,
        thread.causation_id,
        thread.traceparent,
    )
