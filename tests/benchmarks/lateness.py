"""How late timers fire: 5,000 spread over 8 seconds, each with its state and its event.

From due until the timer loop goes on after the commit. Nothing else runs meanwhile; the limit is a
number of milliseconds.
"""

import asyncio
from datetime import UTC, datetime, timedelta

from libs.shared import migrations
from libs.shared.database import Database
from tests.benchmarks.due_rows import FILL, INDEXES, TABLE, WatchedLoop, ticking
from tests.benchmarks.figures import Figure
from tests.benchmarks.servers import Servers, new_database

ROWS = 5_000
OVER = timedelta(seconds=8)
LIMIT_MS = 20
PARTS = 4  # the spread is that of the p99s of this many equal parts
_SOON = timedelta(milliseconds=300)
_LONGEST_SECONDS = 30.0


async def measure(servers: Servers) -> list[Figure]:
    url = await new_database(servers.postgres, "bench_lateness")
    await migrations.upgrade("scoring", url)
    async with Database.open(url, name="bench", pool_size=2) as database:
        await database.pool.execute(TABLE + ";" + INDEXES)
        async with ticking(database) as watched:
            first = datetime.now(UTC) + _SOON
            await database.pool.execute(FILL, ROWS, first, OVER / ROWS)
            database.wake.ring()
            async with asyncio.timeout(_LONGEST_SECONDS):
                while watched.count < ROWS:
                    await asyncio.sleep(0.05)
    late = _late_ms(watched, first.timestamp())
    return [Figure.of_lateness("lateness", late, limit_ms=LIMIT_MS, parts=PARTS)]


def _late_ms(watched: WatchedLoop, first: float) -> list[float]:
    """Of each row, in the order in which they were due and so fired."""
    fired_at = [at for rows, at in watched.fired for _ in range(rows)]
    step = OVER.total_seconds() / ROWS
    return [(at - first - step * (n + 1)) * 1000 for n, at in enumerate(fired_at)]
