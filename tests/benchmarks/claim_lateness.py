"""How late a lead moves on while a million others wait on their clocks.

Two thousand claim windows close over eight seconds; each is swept by routing's own timer, with the
next offer, its record and both events. From when a window closed until the sweep was committed. The
limit is a number of milliseconds.
"""

import asyncio
from datetime import UTC, datetime, timedelta

from libs.shared.database import Database
from services.routing.claim_timeout import CLAIM_TIMEOUT
from tests.benchmarks.due_rows import WatchedLoop, ticking
from tests.benchmarks.figures import Figure
from tests.benchmarks.routed_leads import routing_database
from tests.benchmarks.servers import Servers

WAITING = 1_000_000
ROWS = 2_000
OVER = timedelta(seconds=8)
LIMIT_MS = 20
PARTS = 4
_SOON = timedelta(milliseconds=500)
_LONGEST_SECONDS = 40.0

_FILL = """
    WITH filled AS (
        INSERT INTO leads (lead_id, client_id, source, channel, received_at, state, due_at,
            manager_id, epoch, alert_at)
        SELECT uuidv7(), uuidv7(), 'site', 'form', now(), 'offered',
            $2::timestamptz + n * $3::interval, (SELECT manager_id FROM managers LIMIT 1), 1,
            now() + interval '1 day'
        FROM generate_series(1, $1::int) AS n RETURNING lead_id, manager_id, due_at
    )
    INSERT INTO offers (lead_id, manager_id, epoch, why, offered_at, claim_until)
    SELECT lead_id, manager_id, 1, 'bench', now(), due_at FROM filled
"""
_COUNT = """
    UPDATE loads SET open_leads = (SELECT count(*) FROM leads WHERE leads.manager_id =
        loads.manager_id AND state IN ('offered', 'claimed'))
"""


async def measure(servers: Servers) -> list[Figure]:
    url = await routing_database(servers, "bench_claim_lateness")
    async with Database.open(url, name="bench", pool_size=3) as database:
        pool = database.pool
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        await pool.execute("UPDATE managers SET capacity = 10000000")
        await pool.execute(_FILL, WAITING, tomorrow, timedelta(milliseconds=1), timeout=300)
        await pool.execute(_COUNT, timeout=300)
        await pool.execute("VACUUM ANALYZE", timeout=300)
        await pool.execute("CHECKPOINT", timeout=300)
        first = datetime.now(UTC) + _SOON
        await pool.execute(_FILL, ROWS, first, OVER / ROWS)
        await pool.execute(_COUNT, timeout=60)
        first_at = first.timestamp()
        async with ticking(database, CLAIM_TIMEOUT) as watched:
            async with asyncio.timeout(_LONGEST_SECONDS):
                while watched.count < ROWS:
                    await asyncio.sleep(0.05)
    late = _late_ms(watched, first_at)
    return [Figure.of_lateness("claim_lateness", late, limit_ms=LIMIT_MS, parts=PARTS)]


def _late_ms(watched: WatchedLoop, first: float) -> list[float]:
    swept_at = [at for rows, at in watched.fired for _ in range(rows)]
    step = OVER.total_seconds() / ROWS
    return [(at - first - step * (n + 1)) * 1000 for n, at in enumerate(swept_at[:ROWS])]
