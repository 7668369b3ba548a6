"""A table of due rows, as routing has them, and the timer that lets them lapse."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from libs.shared import outbox
from libs.shared.background import beside
from libs.shared.clock import Clock
from libs.shared.database import Connection, Database
from libs.shared.events import LeadUnclaimed
from libs.shared.timers import LONGEST_SLEEP_SECONDS, Ahead, Timer, TimerLoop, due_column
from libs.shared.wake import Bell

BATCH = 500

TABLE = """
CREATE TABLE windows (
    lead_id uuid NOT NULL, client_id uuid NOT NULL, manager_id uuid NOT NULL,
    epoch int NOT NULL, state text NOT NULL, due_at timestamptz
) WITH (fillfactor = 80)
"""
INDEXES = """
ALTER TABLE windows ADD PRIMARY KEY (lead_id);
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


WINDOWS = Timer("bench", due_column("windows"), lapse)


class WatchedLoop(TimerLoop):
    """A timer's loop that notes when it goes on after each commit.

    Attributes:
        fired: Rows, and the real time at which the loop went on after their commit.
        is_idle: Fires nothing: the rows are somebody else's for the moment.
    """

    def __init__(self, timer: Timer, database: Database, clock: Clock, bell: Bell) -> None:
        super().__init__(timer, database, clock, bell)
        self.fired: list[tuple[int, float]] = []
        self.is_idle = False

    @property
    def count(self) -> int:
        return sum(rows for rows, _ in self.fired)

    async def _fire_next(
        self, connection: Connection, ahead: Ahead | None
    ) -> tuple[float, int, Ahead | None]:
        if self.is_idle:
            return LONGEST_SLEEP_SECONDS, 0, None
        until_due, rows, after = await super()._fire_next(connection, ahead)
        if rows:
            self.fired.append((rows, time.time()))
        return until_due, rows, after


@asynccontextmanager
async def ticking(database: Database, timer: Timer = WINDOWS) -> AsyncIterator[WatchedLoop]:
    """Fire while the block runs."""
    clock = Clock(sandbox=False)
    async with clock.running(database.pool, database.wake):
        loop = WatchedLoop(timer, database, clock, database.wake.bell())
        async with beside(loop.run(), name="timer"):
            yield loop
