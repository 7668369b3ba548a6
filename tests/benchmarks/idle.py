"""What scoring's worker takes of a core while nothing happens; 100,000 clients stand in its base.

The worker tells its CPU seconds itself (`process_cpu_seconds_total`). PostgreSQL's share is not
in it: the transactions a second of the worker's database are told on standard error instead.
"""

import asyncio
import re
import sys
import time

import asyncpg
import httpx

from tests.benchmarks.deals import make_topics, scored_clients
from tests.benchmarks.figures import Figure
from tests.benchmarks.servers import Servers, scoring_worker
from tests.conftest import free_port

PREFIX = "idle."
SETTLES_SECONDS = 6.0  # touches of everybody were planned, statistics taken
ROUNDS = 4
ROUND_SECONDS = 4.0
LIMIT_PERCENT = 5.0  # it looks at a dozen tables once a second; more would be noticed by a laptop

_CPU = re.compile(r"^process_cpu_seconds_total (\S+)$", re.MULTILINE)
_UNPLANNED = "SELECT EXISTS (SELECT FROM touch_changes) OR EXISTS (SELECT FROM outbox)"
_TRANSACTIONS = """
    SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()
"""


async def measure(servers: Servers) -> list[Figure]:
    await make_topics(servers, PREFIX)
    url, _ = await scored_clients(servers, "bench_idle")
    port = free_port()
    async with (
        scoring_worker(servers, url, prefix=PREFIX, port=port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        connection = await asyncpg.connect(url)
        while await connection.fetchval(_UNPLANNED):
            await asyncio.sleep(0.2)
        await asyncio.sleep(SETTLES_SECONDS)
        began, before = time.perf_counter(), await connection.fetchval(_TRANSACTIONS)
        shares = [(LIMIT_PERCENT, await _share(http)) for _ in range(ROUNDS)]
        seconds = time.perf_counter() - began
        more = await connection.fetchval(_TRANSACTIONS) - before
        sys.stderr.write(f"idle: {more / seconds:.0f} transactions a second\n")
        await connection.close()
    return [Figure.of("idle", "% of a core", shares, bar=1.0, low_is_good=True)]


async def _share(http: httpx.AsyncClient) -> float:
    began, before = time.perf_counter(), await _cpu_seconds(http)
    await asyncio.sleep(ROUND_SECONDS)
    return 100 * (await _cpu_seconds(http) - before) / (time.perf_counter() - began)


async def _cpu_seconds(http: httpx.AsyncClient) -> float:
    found = _CPU.search((await http.get("/metrics")).text)
    if found is None:
        raise RuntimeError("the worker does not tell its CPU seconds")
    return float(found[1])
