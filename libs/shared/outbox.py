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

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared import context, failpoints
from libs.shared.database import Connection
from libs.shared.events import Event

SHARDS = 8  # fixed for ever: rows written under another number would change their shard

_COLUMNS = """shard, event_id, topic, also_topic, key, type, time, data,
    correlation_id, causation_id, traceparent"""

_INSERT_ONE = text(
    f"INSERT INTO outbox ({_COLUMNS}) VALUES (:shard, :event_id, :topic, :also_topic, :key, :type,"
    " :time, :data, :correlation_id, :causation_id, :traceparent)"
)

INSERT_MANY = f"""
    INSERT INTO outbox ({_COLUMNS})
    SELECT * FROM unnest($1::smallint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[],
        $7::timestamptz[], $8::bytea[], $9::text[], $10::uuid[], $11::text[])
"""


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
        await session.execute(_INSERT_ONE, row_of(event))
    failpoints.reach("outbox.added")


async def add_all(connection: Connection, events: Sequence[Event]) -> None:
    """Put many events into the connection's transaction in one statement, in their order.

    The transaction must have locked or inserted the aggregates already.
    """
    if not events:
        return
    rows = [row_of(event) for event in events]
    names = rows[0].keys()
    await connection.execute(INSERT_MANY, *([row[name] for row in rows] for name in names))
    failpoints.reach("outbox.added")


def row_of(event: Event) -> dict[str, object]:
    """The outbox row of an event, its members in the order of `INSERT_MANY`."""
    key = event.key
    thread = event.thread or context.current()
    return {
        "shard": shard_of(key),
        "event_id": event.event_id,
        "topic": event.topic,
        "also_topic": event.current_topic,
        "key": key,
        "type": event.wire_type(),
        "time": event.occurred_at,
        "data": event.__pydantic_serializer__.to_json(event),
        "correlation_id": thread.correlation_id,
        "causation_id": thread.causation_id,
        "traceparent": thread.traceparent,
    }
