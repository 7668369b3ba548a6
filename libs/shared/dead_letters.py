"""Events that could not be handled: kept with their reason, looked at, mended, replayed.

A poison event parks its lane (one key of one topic): later events of the lane are kept here too,
in order, until the poison is replayed or discarded. Replaying runs the same handler in the same
kind of transaction as the inbox does, and then lets the waiting ones follow. Every poison is also
mirrored, through the outbox, to `<topic>.dead-letters` for those who watch the broker.
"""

from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from typing import Literal

import asyncpg
import structlog

from libs.shared import failpoints
from libs.shared.cloudevents import Envelope
from libs.shared.database import Connection, is_transient
from libs.shared.ids import new_id
from libs.shared.kafka import Record
from libs.shared.outbox import shard_of
from libs.shared.topics import dead_letter_topic

log = structlog.get_logger()

Lane = tuple[str, str]  # topic (with prefix) and key
State = Literal["poison", "waiting", "replaying", "replayed", "discarded"]
Handle = Callable[[Record, Connection], Awaitable[None]]

# A foreign record may be as large as the broker takes, which is more than one batch of the relay
# holds; it would block its shard for ever. Its data stand in the table in any case.
LARGEST_MIRRORED = 200_000

OPEN_STATES = "('poison', 'waiting', 'replaying')"
ANY_OPEN = f"EXISTS (SELECT FROM dead_letters WHERE state IN {OPEN_STATES})"

_LAY_ASIDE = """
    INSERT INTO dead_letters
        (event_id, topic, partition, "offset", key, type, headers, data, state, reason, received_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, to_timestamp($11 / 1000.0))
    ON CONFLICT (topic, partition, "offset") DO NOTHING
    RETURNING id
"""
_MIRROR = """
    INSERT INTO outbox (shard, event_id, topic, key, type, time, data, extra)
    VALUES ($1, $2, $3, $4, $5, to_timestamp($6 / 1000.0), $7, $8)
"""


def reason_of(error: BaseException) -> str:
    """An error in one line that PostgreSQL can store; long enough to understand."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".replace("\x00", "")[:2000]


async def parked(tx: Connection, lanes: Collection[Lane]) -> set[Lane]:
    """Which of these lanes have an open dead letter.

    The rows stay locked until the transaction ends, so that a replay which settles the lane and an
    event which joins it cannot miss each other.
    """
    rows = await tx.fetch(
        f"SELECT topic, key FROM dead_letters WHERE state IN {OPEN_STATES}"
        " AND key = ANY($1) FOR SHARE",
        list({key for _, key in lanes}),
    )
    return {(row["topic"], row["key"]) for row in rows} & set(lanes)


async def lay_aside(
    tx: Connection,
    record: Record,
    envelope: Envelope | None,
    state: Literal["poison", "waiting"],
    reason: str,
    *,
    mirror_prefix: str | None = None,
) -> None:
    """Keep a record that was not handled. Keeping the same record twice changes nothing.

    Args:
        mirror_prefix: Topic prefix; when given, the record is mirrored to the dead-letter topic.
    """
    key = envelope.key if envelope else (record.key or b"").decode(errors="replace")
    kind = envelope.type if envelope else "unreadable"
    kept = await tx.fetchval(
        _LAY_ASIDE,
        envelope.id if envelope else new_id(),
        record.topic,
        record.partition,
        record.offset,
        key.replace("\x00", ""),
        kind,
        [[name, value.decode("latin-1")] for name, value in record.headers],
        record.value,
        state,
        reason.replace("\x00", ""),
        float(record.timestamp_ms),
    )
    failpoints.reach("dead_letter.laid_aside")
    if kept is None or mirror_prefix is None:
        return
    plain_topic = record.topic.removeprefix(mirror_prefix)
    await tx.execute(
        _MIRROR,
        shard_of(key),
        envelope.id if envelope else new_id(),
        dead_letter_topic(plain_topic),
        key.replace("\x00", ""),
        kind,
        float(record.timestamp_ms),
        record.value if len(record.value or b"") <= LARGEST_MIRRORED else None,
        {"dead_letter_reason": reason.replace("\x00", "")[:500]},
    )


def record_of(row: asyncpg.Record) -> Record:
    """The record as it was heard (or as it was mended)."""
    return Record(
        topic=row["topic"],
        partition=row["partition"],
        offset=row["offset"],
        key=(row["key"] or "").encode(),
        value=row["data"],
        headers=[(name, value.encode("latin-1")) for name, value in row["headers"]],
        timestamp_ms=int(row["received_at"].timestamp() * 1000),
    )


async def next_replay(connection: Connection) -> bool:
    """Whether a lane can be gone on with: its first open letter is not a poison."""
    return await connection.fetchval(_READY_LANES + " LIMIT 1") is not None


_READY_LANES = f"""
    SELECT topic FROM (
        SELECT DISTINCT ON (topic, key) topic, key, state FROM dead_letters
        WHERE state IN {OPEN_STATES} ORDER BY topic, key, id
    ) AS first_open WHERE state <> 'poison'
"""


async def replay_lanes(tx: Connection, now: datetime, handle: Handle) -> int:
    """Go on with one lane as far as it will go; how many letters were settled.

    Each letter is handled in a savepoint of its own. The first that fails is a poison again and
    the rest of its lane goes on waiting.
    """
    lane = await tx.fetchrow(
        _READY_LANES.replace("SELECT topic FROM", "SELECT topic, key FROM") + " LIMIT 1"
    )
    if lane is None:
        return 0
    rows = await tx.fetch(
        f"SELECT * FROM dead_letters WHERE topic = $1 AND key = $2 AND state IN {OPEN_STATES}"
        " ORDER BY id FOR UPDATE",
        lane["topic"],
        lane["key"],
    )
    settled = 0
    for row in rows:
        if row["state"] == "poison":
            break
        if not await _replay(tx, row, now, handle):
            break
        settled += 1
    return max(settled, 1)


async def _replay(tx: Connection, row: asyncpg.Record, now: datetime, handle: Handle) -> bool:
    try:
        async with tx.transaction():
            await handle(record_of(row), tx)
    except Exception as error:
        if is_transient(error):
            raise
        await tx.execute(
            "UPDATE dead_letters SET state = 'poison', reason = $2, attempts = attempts + 1"
            " WHERE id = $1",
            row["id"],
            reason_of(error),
        )
        log.warning("dead_letter_failed_again", dead_letter_id=row["id"])
        return False
    await tx.execute(
        "UPDATE dead_letters SET state = 'replayed', resolved_at = $2, attempts = attempts + 1"
        " WHERE id = $1",
        row["id"],
        now,
    )
    failpoints.reach("dead_letter.replayed")
    log.info("dead_letter_replayed", dead_letter_id=row["id"])
    return True
