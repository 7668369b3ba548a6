"""The outermost layer of an API: ids, limits, metrics, and a problem for whatever goes wrong.

Pure ASGI and one layer for all of it: each further layer costs every request, and layers made of
tasks (BaseHTTPMiddleware) lose context variables and leak connections when cancelled.
"""

import re
import time
from collections.abc import Mapping

import structlog
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from opentelemetry.trace import SpanKind
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.shared import context, problems, telemetry
from libs.shared.draining import Draining
from libs.shared.errors import DomainError
from libs.shared.ids import new_id

SLOW_SECONDS = 1.0  # slower answers are logged even when they are good
UNMATCHED = "(unmatched)"
_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = structlog.get_logger()

requests_total = Counter(
    "http_requests_total", "Answered requests", ("method", "route", "status_class")
)
request_seconds = Histogram(
    "http_request_duration_seconds",
    "From the first byte read to the last byte sent",
    ("method", "route"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


class Door:
    """Middleware that every request passes first."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, draining: Draining) -> None:
        self._app = app
        self._draining = draining
        self._max_body_bytes = max_body_bytes
        self._templates: dict[int, str] | None = None
        self._meters: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = _wanted(scope)
        request_id = _sane(headers.get(b"x-request-id")) or str(new_id())
        correlation_id = _sane(headers.get(b"x-correlation-id")) or request_id
        given = headers.get(b"traceparent", b"").decode("latin-1")
        parent = given if telemetry.parse(given) else None
        if parent is None and not telemetry.is_on():
            parent = telemetry.new_traceparent()
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, request_id, correlation_id, is_last=self._draining.has_begun)
        with context.bound(correlation_id=correlation_id, traceparent=parent):
            if telemetry.is_on():
                with telemetry.span("HTTP", kind=SpanKind.SERVER) as span:
                    await self._serve(scope, receive, answer, headers)
                    if span is not None:
                        span.update_name(f"{scope['method']} {self._template(scope)}")
                        span.set_attribute("http.response.status_code", answer.status)
            else:
                await self._serve(scope, receive, answer, headers)
            self._measure(scope, answer.status, time.perf_counter() - started)

    async def _serve(
        self, scope: Scope, receive: Receive, answer: "_Answer", headers: Mapping[bytes, bytes]
    ) -> None:
        try:
            if b"%00" in scope.get("query_string", b"") or "\0" in scope["path"]:
                raise problems.UrlMalformed
            await self._app(scope, self._limited(receive, headers), answer.send)
        except Exception as error:
            problem = problems.problem_of(error)
            if problem.status >= 500:
                log.error("request_failed", route=self._template(scope), exc_info=error)
            elif not isinstance(error, DomainError):
                log.warning("request_refused_by_database", code=problem.code, exc_info=error)
            if answer.status:
                raise  # the answer is on its way: all that is left is to break the connection
            await problems.response(problem, scope)(scope, receive, answer.send)

    def _limited(self, receive: Receive, headers: Mapping[bytes, bytes]) -> Receive:
        """The body, cut off where it passes the limit; never read further, never kept."""
        limit = self._max_body_bytes
        declared = headers.get(b"content-length")
        if declared is not None:
            if declared.isdigit() and int(declared) <= limit:
                return receive  # the server holds the client to it
            raise problems.BodyTooLarge(max_bytes=limit)
        if b"transfer-encoding" not in headers:
            return receive
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise problems.BodyRefused(problems.BodyTooLarge(max_bytes=limit))
            return message

        return counted

    def _template(self, scope: Scope) -> str:
        """The route's path with its parameters' names; ids must not become metric labels."""
        route = scope.get("route")
        if route is None:
            return UNMATCHED
        if self._templates is None:
            self._templates = _templates(scope["app"])
        return self._templates.get(id(route), UNMATCHED)

    def _measure(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        route = self._template(scope)
        meters = self._meters.get((method, route, status // 100))
        if meters is None:
            meters = (
                requests_total.labels(method, route, f"{status // 100}xx"),
                request_seconds.labels(method, route),
            )
            self._meters[method, route, status // 100] = meters
        meters[0].inc()
        meters[1].observe(seconds)
        if status >= 400 or seconds > SLOW_SECONDS:
            log.info(
                "request_answered",
                method=method,
                route=route,
                status=status,
                ms=round(seconds * 1000, 1),
            )


class _Answer:
    """Sends the answer on, with the ids in its headers, and remembers its status."""

    __slots__ = ("_ids", "_send", "status")

    def __init__(self, send: Send, request_id: str, correlation_id: str, *, is_last: bool) -> None:
        self._send = send
        self._ids = [
            (b"x-request-id", request_id.encode()),
            (b"x-correlation-id", correlation_id.encode()),
        ]
        if is_last:  # the client must not send more on a connection that is about to end
            self._ids.append((b"connection", b"close"))
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._ids]
        await self._send(message)


_WANTED = frozenset(
    {b"x-request-id", b"x-correlation-id", b"traceparent", b"content-length", b"transfer-encoding"}
)


def _wanted(scope: Scope) -> dict[bytes, bytes]:
    return {name: value for name, value in scope["headers"] if name in _WANTED}


def _sane(value: bytes | None) -> str | None:
    return value.decode() if value is not None and _SANE_ID.fullmatch(value) else None


def _templates(app: FastAPI) -> dict[int, str]:
    found: dict[int, str] = {}
    for route in iter_route_contexts(app.routes):
        if route.path_format:
            found[id(route.original_route)] = route.path_format
    return found
