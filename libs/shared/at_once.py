"""A few ordinary events heard in one statement: one round trip, one transaction.

A batch of few events is three statements between BEGIN and COMMIT, and half of its time goes by on
the way. Here all of it is one: the positions move, then the ids are remembered, then what the
handler would do is done, in parts of one WITH. It fails with a division by zero, and leaves
nothing, wherever anything is out of the ordinary; the inbox hears such a batch as ever.
"""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

import asyncpg

from libs.shared import dead_letters
from libs.shared.arrays import ids_text
from libs.shared.database import Connection
from libs.shared.leases import MOVE, Fence

# Nothing is remembered before the positions have moved, so whoever has lost them waits for no id.
REMEMBERING = f"""
    moved AS ({MOVE}), new AS (
        INSERT INTO inbox (event_id) SELECT id FROM unnest($7::text::uuid[]) AS id
        WHERE (SELECT count(*) FROM moved) = cardinality($3) ORDER BY id
        ON CONFLICT DO NOTHING RETURNING event_id
    )"""
"""The beginning of both ways to hear: the values of a `Fence`, then the ids."""

ALL_ARE_NEW = "(SELECT one FROM all_are_new) = 1"
"""What a handler's statement must ask before it locks anything: positions are locked first."""

# Without the positions none would be new.
_REMEMBER = f"""
    {REMEMBERING}, all_are_new AS (
        SELECT 1 / (count(*) = $8 AND NOT {dead_letters.ANY_OPEN})::int AS one FROM new
    )"""
_REMEMBERS = 8  # parameters


class Statement(NamedTuple):
    """What a handler does, as parts of a statement.

    Attributes:
        parts: SQL behind WITH; `$1` is the first of the values. No part is called as one of ours.
        answer: The SELECT behind them: the rows for the outbox that may be sent before they are
            read from there, as `Relay.send_ahead` wants them.
    """

    parts: str
    answer: str
    values: Sequence[object]


async def hear(
    connection: Connection, fence: Fence, ids: Collection[UUID], statement: Statement
) -> list[asyncpg.Record]:
    """Remember the events, move on, and do what the statement does; all of it, or nothing.

    Returns:
        What may be sent before it is read.
    """
    return await connection.fetch(
        _whole(statement.parts, statement.answer),
        *fence,
        ids_text(ids),
        len(ids),
        *statement.values,
    )


@lru_cache(maxsize=64)
def _whole(parts: str, answer: str) -> str:
    behind = re.sub(r"\$(\d+)", lambda n: f"${int(n[1]) + _REMEMBERS}", f"{parts} {answer}")
    return f"WITH {_REMEMBER}, {behind}"
