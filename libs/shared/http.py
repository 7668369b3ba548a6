"""The app of every service, and what its `api.py` needs to speak HTTP.

Everything a service imports for its routes is importable from here.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.middleware.cors import CORSMiddleware

from libs.shared import logging, telemetry
from libs.shared.api_docs import add_docs, openapi_document
from libs.shared.audit import audit_router
from libs.shared.auth import Principal, Role, Tokens, require
from libs.shared.background import beside
from libs.shared.clock import Clock
from libs.shared.database import Database
from libs.shared.door import Door
from libs.shared.draining import Draining
from libs.shared.field_types import (
    AmountMinor,
    CalendarDay,
    Code,
    Currency,
    Flag,
    Instant,
    Int32,
    Int64,
    Text50,
    Text200,
    Text2000,
    Text20000,
)
from libs.shared.garbage import spare_the_collector
from libs.shared.health import ReadyCheck, health_router, measure_loop_lag
from libs.shared.idempotency import IdempotencyKeyRequired, OwnIdempotency
from libs.shared.pagination import Cursor, CursorInvalid, CursorText, Limit, Page, page_of
from libs.shared.policies import Policy, policies_router
from libs.shared.problems import answer_with_problems, problems
from libs.shared.request_bodies import Request
from libs.shared.routes import (
    Db,
    IfMatch,
    Now,
    Session,
    Transaction,
    TransactionalRoute,
    answer_of,
    demand_version,
    router,
    set_etag,
)
from libs.shared.sandbox import sandbox_router
from libs.shared.settings import ServiceSettings
from libs.shared.watchdog import Watchdog

__all__ = [
    "AmountMinor",
    "CalendarDay",
    "Code",
    "Currency",
    "Cursor",
    "CursorInvalid",
    "CursorText",
    "Db",
    "Flag",
    "IdempotencyKeyRequired",
    "IfMatch",
    "Instant",
    "Int32",
    "Int64",
    "Limit",
    "Now",
    "OwnIdempotency",
    "Page",
    "Principal",
    "Request",
    "Role",
    "Session",
    "Text50",
    "Text200",
    "Text2000",
    "Text20000",
    "Transaction",
    "TransactionalRoute",
    "answer_of",
    "create_app",
    "demand_version",
    "page_of",
    "problems",
    "require",
    "router",
    "set_etag",
]


def create_app(
    *,
    settings: ServiceSettings,
    title: str,
    routers: Sequence[APIRouter],
    ready_checks: Mapping[str, ReadyCheck] | None = None,
    policies: Sequence[type[Policy]] = (),
    description: str = "",
) -> FastAPI:
    """The ASGI app of a service.

    While it runs, `app.state` has `database`, `clock`, `tokens` and `settings`.

    Args:
        title: The service's name, as in `contacts`; logs, traces and connections carry it.
        routers: Made by `router()`.
        ready_checks: What must be well besides the database for /readyz.
        policies: What may be changed under /v1/policies.

    Raises:
        TypeError: A route with a body is not a `TransactionalRoute`.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        logging.configure(title, settings.log_level)
        telemetry.configure(title, settings.otlp_endpoint)
        async with _opened(app, settings, title):
            spare_the_collector()
            yield

    app = FastAPI(
        title=f"Baza {title}",
        description=description,
        version="1",
        lifespan=lifespan,
        openapi_url=None,  # the documents are served by add_docs
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours carry no values
    )
    app.state.settings = settings
    app.state.draining = draining = Draining(settings.drain_seconds)
    answer_with_problems(app)
    parts = [*routers, audit_router(), health_router(ready_checks or {})]
    if policies:
        parts.append(policies_router(policies))
    if settings.sandbox:
        parts.append(sandbox_router())
    for part in parts:
        # Not include_router: FastAPI matches the routes of an included router twice a request.
        app.router.routes.extend(part.routes)
    add_docs(app)
    app.openapi = lambda: openapi_document(app)  # type: ignore[method-assign]  # FastAPI's own way
    _refuse_plain_routes(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["ETag", "Location", "X-Request-Id", "Idempotency-Replayed"],
        )
    app.add_middleware(Door, max_body_bytes=settings.max_body_bytes, draining=draining)
    return app


@asynccontextmanager
async def _opened(app: FastAPI, settings: ServiceSettings, title: str) -> AsyncIterator[None]:
    clock = Clock(
        sandbox=settings.sandbox, first_offset=timedelta(seconds=settings.sandbox_offset_seconds)
    )
    async with (
        Watchdog.of(settings).watching(),
        Database.open(
            str(settings.database_url), name=f"{title}-api", pool_size=settings.database_pool
        ) as database,
        clock.running(database.pool, database.wake),
        Tokens.open(
            jwks_url=str(settings.jwks_url),
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
        ) as tokens,
    ):
        app.state.database, app.state.clock, app.state.tokens = database, clock, tokens
        with app.state.draining.on_sigterm():
            async with beside(measure_loop_lag(), name="loop-lag"):
                yield


def _refuse_plain_routes(app: FastAPI) -> None:
    """A plain route would read bodies loosely and know no transaction; better not to start."""
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if not isinstance(route, APIRoute) or isinstance(route, TransactionalRoute):
            continue
        if route.body_field is not None:
            raise TypeError(f"{context.path}: make its router with libs.shared.http.router()")
