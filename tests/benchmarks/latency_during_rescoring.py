"""From deal.closed to segment.changed while a million clients are rated under new rules.

Beside the same worker's own figure a moment before, when it had nothing else to do. Each round puts
new quintiles in force and sends its deals until everybody is rated under them.
"""

import asyncio
from datetime import UTC, datetime

from libs.shared.database import Database
from tests.benchmarks.base import QUINTILES, activated, scored_base
from tests.benchmarks.deals import make_topics
from tests.benchmarks.figures import Figure, p99
from tests.benchmarks.latency import client
from tests.benchmarks.rescoring import touch
from tests.benchmarks.servers import Servers, scoring_worker

ROUNDS = 3
EVENTS = 500  # in a round
PREFIX = "latency_rescoring."
_LONGEST_SECONDS = 300
_BUSY = """
    SELECT EXISTS (SELECT FROM rule_changes WHERE due_at IS NOT NULL)
        OR EXISTS (SELECT FROM touch_replans WHERE due_at IS NOT NULL)
        OR EXISTS (SELECT FROM touch_changes) OR EXISTS (SELECT FROM outbox)
"""


async def measure(servers: Servers) -> list[Figure]:
    deals = await make_topics(servers, PREFIX)
    url = await scored_base(servers, "bench_latency_rescoring")
    pairs = []
    async with (
        Database.open(url, name="bench", pool_size=2) as database,
        scoring_worker(servers, url, prefix=PREFIX),
        client(servers, deals, PREFIX + "segments") as ours,
    ):
        await ours.round(EVENTS)  # warms up
        for number in range(ROUNDS):
            async with database.pool.acquire() as connection:
                await touch(connection, number)
            await _until_idle(database)
            idle = p99(await ours.round(EVENTS))
            version = await activated(database, QUINTILES, datetime.now(UTC))
            pairs.append((idle, p99(await ours.round(EVENTS))))
            await _demand_under_way(database, version)
    return [
        Figure.of("latency_during_rescoring", "ms p99", pairs, bar=5.0, aim=2.0, low_is_good=True)
    ]


async def _until_idle(database: Database) -> None:
    """What the change before has left is done: boundaries written, touches planned anew."""
    async with asyncio.timeout(_LONGEST_SECONDS):
        while await database.pool.fetchval(_BUSY):
            await asyncio.sleep(0.1)


async def _demand_under_way(database: Database, version: int) -> None:
    """A worker that rates nobody meanwhile would be measured idle twice."""
    checked = await database.pool.fetchval(
        "SELECT checked FROM rule_changes WHERE version = $1", version
    )
    if not checked:
        raise RuntimeError("nobody was rated meanwhile")
