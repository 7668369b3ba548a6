"""Firing due rows while a million others wait, beside a bare claim.

Ours is the timer loop with a timer that lets windows lapse: it reads the clock, looks when the next
row is due, claims, changes their state, makes an event of each and puts them into the outbox. The
floor does claim, state and outbox in one statement of the same batch; what it puts there are three
columns that PostgreSQL makes itself. Source: performance.md, section 6. Both work on one table.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import asyncpg

from libs.shared import migrations
from libs.shared.database import SERVER_SETTINGS, Database
from tests.benchmarks.due_rows import BATCH, FILL, INDEXES, TABLE, WatchedLoop, ticking
from tests.benchmarks.figures import Figure
from tests.benchmarks.servers import Servers, new_database

WAITING = 1_000_000
ROWS = 20_000  # in a round
ROUNDS = 3
_LONGEST_SECONDS = 60.0

_FLOOR_TABLE = """
    CREATE TABLE said (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text NOT NULL,
        key text NOT NULL, data text NOT NULL)
"""
_CLAIM = """
    WITH due AS (
        SELECT lead_id FROM windows WHERE due_at <= $1
        ORDER BY due_at, lead_id LIMIT $2 FOR UPDATE SKIP LOCKED
    ), lapsed AS (
        UPDATE windows SET state = 'lapsed', due_at = NULL FROM due
        WHERE windows.lead_id = due.lead_id RETURNING windows.lead_id, client_id, manager_id, epoch
    )
    INSERT INTO said (topic, key, data)
    SELECT 'leads', lead_id::text, row_to_json(lapsed)::text FROM lapsed
"""


async def measure(servers: Servers) -> list[Figure]:
    url = await new_database(servers.postgres, "bench_timers")
    await migrations.upgrade("scoring", url)
    floor = await asyncpg.connect(url, server_settings=SERVER_SETTINGS)
    await floor.execute(TABLE + ";" + _FLOOR_TABLE)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    await floor.execute(FILL, WAITING, tomorrow, timedelta(seconds=1))
    await floor.execute(INDEXES)
    await floor.execute("VACUUM ANALYZE windows")
    await floor.execute("CHECKPOINT")
    pairs = []
    async with (
        Database.open(url, name="bench", pool_size=2) as database,
        ticking(database) as watched,
    ):
        for _ in range(ROUNDS + 1):
            watched.is_idle = True  # or its slow poll would take some of the floor's rows
            await _make_due(floor)
            limit = await _floor_rate(floor)
            pairs.append((limit, await _rate(database, floor, watched)))
    await floor.close()
    return [Figure.of("timers", "rows/s", pairs[1:], bar=0.5, aim=0.8)]  # the first warms up


async def _make_due(connection: asyncpg.Connection) -> None:
    """Rows that are due since an hour ago."""
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    await connection.execute(FILL, ROWS, hour_ago, timedelta(milliseconds=1))


async def _floor_rate(connection: asyncpg.Connection) -> float:
    began = time.perf_counter()
    for _ in range(ROWS // BATCH):
        answer = await connection.execute(_CLAIM, datetime.now(UTC), BATCH)
        if answer != f"INSERT 0 {BATCH}":
            raise RuntimeError(answer)
    return ROWS / (time.perf_counter() - began)


async def _rate(database: Database, connection: asyncpg.Connection, watched: WatchedLoop) -> float:
    already = watched.count
    await _make_due(connection)
    began = time.time()
    watched.is_idle = False
    database.wake.ring()
    async with asyncio.timeout(_LONGEST_SECONDS):
        while watched.count - already < ROWS:
            await asyncio.sleep(0.002)
    return ROWS / (watched.fired[-1][1] - began)
