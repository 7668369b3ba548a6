"""Is it alive, is it ready, how is it doing: what orchestrators and Prometheus ask.

Nobody needs a token for it. An API is ready when its database answers. A lost broker does not
make it unready: requests are accepted, their events wait in the outbox.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest
from starlette.responses import JSONResponse, Response

from libs.shared.database import Database
from libs.shared.outages import UNREACHABLE

READY_SECONDS = 0.5
LAG_INTERVAL_SECONDS = 0.5
LAG_SAMPLES = 60  # half a minute: a stall between two scrapes must not go unseen

ReadyCheck = Callable[[], Awaitable[bool]]

event_loop_lag = Gauge(
    "event_loop_lag_seconds", "How much too late the event loop woke up, worst of half a minute"
)


async def measure_loop_lag() -> None:
    """Keep the gauge up to date for ever."""
    late = deque([0.0], maxlen=LAG_SAMPLES)
    while True:
        asleep_at = time.perf_counter()
        await asyncio.sleep(LAG_INTERVAL_SECONDS)
        late.append(max(0.0, time.perf_counter() - asleep_at - LAG_INTERVAL_SECONDS))
        event_loop_lag.set(max(late))


async def database_answers(database: Database) -> bool:
    """Whether the database answers within half a second."""
    with suppress(*UNREACHABLE):
        async with asyncio.timeout(READY_SECONDS):
            async with database.pool.acquire() as connection:
                return await connection.fetchval("SELECT true") is True
    return False


async def readiness(checks: Mapping[str, ReadyCheck]) -> tuple[bool, dict[str, str]]:
    """Ask every check at once.

    Returns:
        Whether all are well, and a word for each. A check that raises or takes more than twice
        the half second counts as failed.
    """

    async def ask(check: ReadyCheck) -> bool:
        try:
            async with asyncio.timeout(2 * READY_SECONDS):
                return await check()
        except Exception:
            return False

    answers = await asyncio.gather(*(ask(check) for check in checks.values()))
    told = {name: "ok" if well else "failed" for name, well in zip(checks, answers, strict=True)}
    return all(answers), told


def metrics() -> Response:
    """All metrics of this process in Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def health_router(checks: Mapping[str, ReadyCheck]) -> APIRouter:
    """/livez, /readyz and /metrics of an API.

    Args:
        checks: What must be well besides the database.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz")
    async def readyz(request: Request) -> JSONResponse:
        database: Database = request.app.state.database
        all_checks: dict[str, Any] = {"database": lambda: database_answers(database), **checks}
        if request.app.state.draining.has_begun:
            return JSONResponse({"status": "stopping", "checks": {}}, 503)
        well, told = await readiness(all_checks)
        body = {"status": "ready" if well else "not ready", "checks": told}
        return JSONResponse(body, 200 if well else 503)

    @router.get("/metrics")
    async def prometheus() -> Response:
        return metrics()

    return router
