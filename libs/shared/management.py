"""A worker's own small door: /livez, /readyz, /metrics, for supervisors and scrapers."""

import asyncio
from collections.abc import Callable

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from libs.shared.database import Database

DATABASE_ANSWERS_WITHIN_SECONDS = 0.5


class _Server(uvicorn.Server):
    """Leaves signals to the runtime."""

    def install_signal_handlers(self) -> None:
        return


async def serve(database: Database, host: str, port: int, ready: Callable[[], bool]) -> None:
    """Answer on the port until cancelled; port 0 means no door at all.

    Args:
        ready: Whether the worker's own loops are at work; the database is asked here.
    """
    if port == 0:
        await asyncio.Event().wait()

    async def livez(_request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_request: Request) -> Response:
        try:
            async with asyncio.timeout(DATABASE_ANSWERS_WITHIN_SECONDS):
                await database.pool.fetchval("SELECT 1")
            answered = True
        except Exception:
            answered = False
        ok = answered and ready()
        return JSONResponse(
            {"status": "ready" if ok else "not ready", "database": answered, "loops": ready()},
            status_code=200 if ok else 503,
        )

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    app = Starlette(
        routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]
    )
    server = _Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            lifespan="off",
        )
    )
    await server._serve()
