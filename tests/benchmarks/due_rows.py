"""A table of due rows, as routing has them, and the timer that lets them lapse."""

import asyncio
import time
from datetime import datetime
from typing import Any

from libs.shared import outbox
from libs.shared.database import Connection
from libs.shared.events import LeadUnclaimed
from libs.shared.timers import Timer, due_column

BATCH = 500

TABLE = """
CREATE TABLE windows (
    lead_id uuid PRIMARY KEY, client_id uuid NOT NULL, manager_id uuid NOT NULL,
    epoch int NOT NULL, state text NOT NULL, due_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX ON windows (due_at) WHERE due_at IS NOT NULL;
"""
FILL = """
    INSERT INTO windows SELECT uuidv7(), uuidv7(), uuidv7(), 1, 'offered',
        $2::timestamptz + $3::interval * n
    FROM generate_series(1, $1::int) AS n
"""
_LAPSE = """
    WITH due AS (
        SELECT lead_id FROM windows WHERE due_at <= $1
        ORDER BY due_at, lead_id LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    UPDATE windows SET state = 'lapsed', due_at = NULL FROM due
    WHERE windows.lead_id = due.lead_id
    RETURNING windows.lead_id, client_id, manager_id, epoch
"""


async def lapse(tx: Connection, now: datetime) -> int:
    """End due windows and say so; at most `BATCH`."""
    rows = await tx.fetch(_LAPSE, now, BATCH)
    await outbox.add_all(
        tx,
        [
            LeadUnclaimed(
                lead_id=row["lead_id"],
                client_id=row["client_id"],
                manager_id=row["manager_id"],
                epoch=row["epoch"],
                occurred_at=now,
            )
            for row in rows
        ],
    )
    return len(rows)


class Watched:
    """The timer, and when each of its batches was committed.

    Attributes:
        fired: Rows, and the real time at which the loop went on after their commit.
        is_idle: Sees nothing that is due: the rows are somebody else's for the moment.
    """

    def __init__(self) -> None:
        self.fired: list[tuple[int, float]] = []
        self.is_idle = False
        self._uncommitted: dict[asyncio.Task[Any] | None, int] = {}  # by the loop's lane
        self._look = due_column("windows")
        self.timer = Timer("bench", self._next_due, self._fire)

    @property
    def count(self) -> int:
        return sum(rows for rows, _ in self.fired)

    async def _next_due(self, connection: Connection) -> datetime | None:
        if rows := self._uncommitted.pop(asyncio.current_task(), 0):
            self.fired.append((rows, time.time()))
        return None if self.is_idle else await self._look(connection)

    async def _fire(self, tx: Connection, now: datetime) -> int:
        rows = self._uncommitted[asyncio.current_task()] = await lapse(tx, now)
        return rows
