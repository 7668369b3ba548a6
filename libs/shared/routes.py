"""What every route of every service does around its endpoint: one request, one transaction.

The order is: who is it (401, 403), is it JSON (415), was it sent before (Idempotency-Key), the
endpoint, commit, answer. The commit comes before the first byte of the answer, so that a caller
who reads after writing finds what was written; any error rolls everything back.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Header
from fastapi import Request as HttpRequest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared import context, failpoints, idempotency
from libs.shared.auth import Principal, Requirement
from libs.shared.clock import Clock
from libs.shared.database import Connection, Database, bare
from libs.shared.errors import DomainError, PreconditionFailed, PreconditionRequired
from libs.shared.request_bodies import JsonRequest, demand_json

UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_ETAG = re.compile(r'"(\d{1,18})"')


class RequestTransaction:
    """The one ORM transaction of a request; connects only when it is used."""

    __slots__ = ("_database", "_session", "_stated")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._session: AsyncSession | None = None
        self._stated = False

    @property
    def session(self) -> AsyncSession:
        """The session, opened on first use."""
        if self._session is None:
            self._session = AsyncSession(self._database.engine, expire_on_commit=False)
        return self._session

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[Connection]:
        """A connection for an endpoint whose effect is one statement, which commits itself.

        Not where the request has begun a transaction, as one with an Idempotency-Key has: then it
        is part of that.
        """
        if self._session is not None:
            yield await bare(self._session)
            return
        self._stated = True
        async with self._database.pool.acquire() as connection:
            yield connection

    async def commit(self) -> bool:
        """Commit if anything was opened; True if so, or if a statement has committed itself."""
        if self._session is None:
            return self._stated
        await self._session.commit()
        return True

    async def close(self) -> None:
        """Give the connection back; what is not committed is rolled back."""
        if self._session is not None:
            # Shielded: a request that is cancelled now would keep the connection for ever.
            await asyncio.shield(asyncio.create_task(self._session.close()))


class TransactionalRoute(APIRoute):
    """A route whose endpoint runs in one transaction and can be sent again."""

    def get_route_handler(self) -> Callable[[HttpRequest], Coroutine[Any, Any, Response]]:
        """The endpoint with everything around it."""
        answer = super().get_route_handler()
        calls = list(_calls(self.dependant))
        requirements = [call for call in calls if isinstance(call, Requirement)]
        has_body = self.body_field is not None
        unsafe = not UNSAFE.isdisjoint(self.methods or ())
        keyed = unsafe and bool(requirements) and idempotency.own_claim not in calls

        async def handle(plain: HttpRequest) -> Response:
            request = JsonRequest(plain.scope, plain.receive)
            principal: Principal | None = None
            for requirement in requirements:
                principal = await requirement(request)
            if has_body:
                demand_json(request)
            with nullcontext() if principal is None else context.bound(actor=principal.subject):
                if keyed and principal is not None and idempotency.HEADER in request.headers:
                    claim = await idempotency.claim_of(request, principal.subject)
                    return await _in_transaction(request, answer, claim, rings=True)
                return await _in_transaction(request, answer, None, rings=unsafe)

        return handle


async def _in_transaction(
    request: JsonRequest,
    answer: Callable[[HttpRequest], Coroutine[Any, Any, Response]],
    claim: idempotency.Claim | None,
    *,
    rings: bool,
) -> Response:
    database: Database = request.app.state.database
    transaction = RequestTransaction(database)
    request.state.transaction = transaction
    try:
        if claim is not None:
            stored = await idempotency.claim(transaction.session, claim)
            if stored is not None:
                return stored.response()
            failpoints.reach("idempotency.claimed")
        response = await answer(request)
        if response.status_code >= 400:
            return response
        if claim is not None:
            await idempotency.settle(transaction.session, claim, response)
            failpoints.reach("idempotency.settled")
        failpoints.reach("request.done")
        if await transaction.commit() and rings:
            failpoints.reach("request.committed")
            database.wake.ring()
        return response
    finally:
        await transaction.close()


def _calls(dependant: Dependant) -> Iterator[Any]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _calls(inner)


def router(*, prefix: str = "", tags: list[str] | None = None, **options: Any) -> APIRouter:
    """A router whose routes are transactional; every router of a service is made by this."""
    return APIRouter(
        prefix=prefix, tags=list(tags or []), route_class=TransactionalRoute, **options
    )


async def _transaction(request: HttpRequest) -> RequestTransaction:
    transaction: RequestTransaction = request.state.transaction
    return transaction


async def _session(request: HttpRequest) -> AsyncSession:
    transaction: RequestTransaction = request.state.transaction
    return transaction.session


async def _now(request: HttpRequest) -> datetime:
    clock: Clock = request.app.state.clock
    return clock.now()


async def _database(request: HttpRequest) -> Database:
    database: Database = request.app.state.database
    return database


Session = Annotated[AsyncSession, Depends(_session)]
Transaction = Annotated[RequestTransaction, Depends(_transaction)]
Now = Annotated[datetime, Depends(_now)]
Db = Annotated[Database, Depends(_database)]


class IfMatchMalformed(DomainError):
    """If-Match takes one strong ETag as you received it, or *."""

    status = 400
    code = "if-match-malformed"
    ru = "If-Match принимает один ETag в том виде, в каком вы его получили, или *."


ANY_VERSION = 0


async def expected_version(
    if_match: Annotated[
        str | None,
        Header(description='ETag of the version that you saw, as in `"7"`; `*` for any.'),
    ] = None,
) -> int:
    """The version that an update is meant for; `ANY_VERSION` for `*`.

    Raises:
        PreconditionRequired: There is no If-Match.
        IfMatchMalformed: It is weak, a list or not one of our ETags.
    """
    if if_match is None:
        raise PreconditionRequired
    if if_match.strip() == "*":
        return ANY_VERSION
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise IfMatchMalformed
    return int(found[1])


IfMatch = Annotated[int, Depends(expected_version)]


def demand_version(expected: int, current: int) -> None:
    """Check that an update was made from the version that is current.

    Raises:
        PreconditionFailed: It was made from another one.
    """
    if expected not in (ANY_VERSION, current):
        raise PreconditionFailed(current_version=current)


def set_etag(response: Response, version: int) -> None:
    """Say which version an answer shows; it is what If-Match takes."""
    response.headers["ETag"] = f'"{version}"'


def answer_of(found: Any) -> Response:
    """An answer whose values are right already, written as their model would be.

    FastAPI would judge each of them again, which takes longer than everything else about a page.
    """
    body = orjson.dumps(found, default=str, option=orjson.OPT_UTC_Z)  # str: asyncpg's UUIDs
    return Response(body, media_type="application/json")


def depends_on(route: APIRoute, call: Callable[..., Any]) -> bool:
    """Whether a route uses a dependency, directly or through others."""
    return call in _calls(route.dependant)
