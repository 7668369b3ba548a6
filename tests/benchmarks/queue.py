"""The queue of a million clients while 200 managers work: their page, and `next`.

Each manager looks at their queue and takes the next client once every four seconds, all of them
together a hundred requests a second from as many connections, which is more than people can click.
A third of the base is due or overdue; some clients belong to nobody and are everybody's. Value is
the 99th percentile of both kinds of request, the limit is 50 milliseconds. Connections are open
before the clock starts: two hundred at one moment are no manager's wait. Each client may be given
to one manager only: that is counted, too.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import asyncpg
import orjson

from libs.shared import migrations
from libs.shared.ids import new_id
from tests.benchmarks.base import CLIENTS
from tests.benchmarks.figures import Figure, p99
from tests.benchmarks.http_load import Line, request
from tests.benchmarks.servers import Servers, new_database, service_server
from tests.shared.issuer import Issuer

MANAGERS = 200
EVERY_SECONDS = 4.0
ROUNDS = 3
SECONDS = 8.0
LIMIT_MS = 50.0

_SCORES = """
    INSERT INTO scores (client_id, seq, segment, recency_score, frequency_score, monetary_score,
        last_day, frequency, monetary_minor, as_of, rule_version)
    SELECT uuidv7(), 1, (ARRAY['champions', 'at_risk', 'lost', 'loyal_customers'])[1 + n % 4],
        1 + n % 5, 1 + n / 5 % 5, 1 + n / 25 % 5, current_date - n % 300, 1 + n % 9,
        n::bigint * 7919 % 9000000, current_date, 1
    FROM generate_series(1, $1::int) AS n
"""
# Every tenth client is nobody's, every third is in the queue.
_PLANS = """
    INSERT INTO touch_plans (client_id, touch_no, state, owner_id, segment, priority, value_minor,
        due_on, opens_at, closes_at, due_at)
    SELECT client_id, 1,
        CASE n % 6 WHEN 0 THEN 'due' WHEN 1 THEN 'overdue' ELSE 'waiting' END,
        CASE WHEN n % 10 < 9 THEN ($1::uuid[])[1 + n / 10 % cardinality($1)] END,
        segment, 1 + n % 9, monetary_minor, current_date, now(), now() + interval '1 day',
        CASE WHEN n % 6 <> 1 THEN now() + interval '1 day' END
    FROM (SELECT *, row_number() OVER (ORDER BY client_id) AS n FROM scores) AS numbered
"""


async def measure(servers: Servers) -> list[Figure]:
    url = await new_database(servers.postgres, "bench_queue")
    await migrations.upgrade("scoring", url)
    managers = [new_id() for _ in range(MANAGERS)]
    connection = await asyncpg.connect(url)
    await connection.execute(_SCORES, CLIENTS)
    await connection.execute(_PLANS, managers)
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("CHECKPOINT")
    async with (
        Issuer().serving() as issuer,
        service_server("scoring", url, issuer) as port,
    ):
        tokens = [issuer.token("manager", manager_id=manager) for manager in managers]
        rounds = [await _round(port, tokens) for _ in range(ROUNDS + 1)]
        await _demand_one_manager_each(connection)
    await connection.close()
    pairs = [(LIMIT_MS, slowest) for slowest in rounds[1:]]  # the first warms up
    return [Figure.of("queue", "ms p99", pairs, bar=1.0, aim=0.5, low_is_good=True)]


async def _round(port: int, tokens: Sequence[str]) -> float:
    """p99 of page and `next` together, in milliseconds."""
    took: list[float] = []
    async with AsyncExitStack() as lines:
        opened = [await lines.enter_async_context(Line(port)) for _ in tokens]
        ends_at = time.perf_counter() + SECONDS
        working = zip(opened, tokens, strict=True)
        await asyncio.gather(*(_work(line, token, took, ends_at) for line, token in working))
    return p99(took) * 1000


async def _work(line: Line, token: str, took: list[float], ends_at: float) -> None:
    bearer = f"authorization: Bearer {token}"
    page = request("GET", "/v1/queue?limit=50", b"", bearer)
    done_with: str | None = None
    due = time.perf_counter() + random.random() * EVERY_SECONDS
    while due < ends_at:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        due += EVERY_SECONDS
        await _ask(line, page, took)
        body = orjson.dumps({"done_with": done_with})
        answer = await _ask(line, request("POST", "/v1/queue/next", body, bearer), took)
        done_with = answer["client"]["client_id"]


async def _ask(line: Line, raw: bytes, took: list[float]) -> dict[str, dict[str, str]]:
    began = time.perf_counter()
    status, body = await line.send(raw)
    took.append(time.perf_counter() - began)
    if status != 200:
        raise RuntimeError(f"{status}: {body[:300]!r}")
    found: dict[str, dict[str, str]] = orjson.loads(body)
    return found


async def _demand_one_manager_each(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Nobody was given away twice: no lease has run out in this short time."""
    leased, most = await connection.fetchrow(  # type: ignore[misc]  # an aggregate has a row
        "SELECT count(*), max(lease_no) FROM touch_plans WHERE lease_no > 0"
    )
    if not leased or most != 1:
        raise RuntimeError(f"{leased} clients were given, one of them {most} times")
