"""Commands that can be sent again: the same Idempotency-Key gets the same answer, one effect.

The key's row is written in the transaction of the effect, so there is never one without the
other. `TransactionalRoute` does all of this by itself; an endpoint that writes in one statement
of its own takes `OwnIdempotency` and uses `INSERT_ANSWERED` and `stored_answer`.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated

import asyncpg
import orjson
from fastapi import Depends, Request
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared.database import Connection
from libs.shared.errors import Conflict, DomainError, Invalid

HEADER = "idempotency-key"
REPLAYED = "Idempotency-Replayed"
MAX_KEY = 255
WAIT = "5s"  # how long a repetition waits for the first one to end
KEPT_HEADERS = ("etag", "location", "content-type")

# One statement: the lock timeout holds for the wait on a first attempt that is still running.
_CLAIM = """
WITH patience AS MATERIALIZED (SELECT set_config('lock_timeout', '{wait}', true))
INSERT INTO idempotency_keys (principal, route, key, fingerprint)
SELECT {principal}, {route}, {key}, {fingerprint} FROM patience
ON CONFLICT DO NOTHING RETURNING true
"""
_CLAIM_ORM = text(
    _CLAIM.format(
        wait=WAIT, principal=":principal", route=":route", key=":key", fingerprint=":fingerprint"
    )
)
_READ = "SELECT fingerprint, status, body, headers FROM idempotency_keys WHERE {where}"
_READ_ORM = text(
    _READ.format(where="principal = :principal AND route = :route AND key = :key")
).columns(headers=JSONB)
_READ_BARE = _READ.format(where="principal = $1 AND route = $2 AND key = $3")
_SETTLE_ORM = text(
    "UPDATE idempotency_keys SET status = :status, body = :body, headers = CAST(:headers AS jsonb)"
    " WHERE principal = :principal AND route = :route AND key = :key"
)
INSERT_ANSWERED = """
INSERT INTO idempotency_keys (principal, route, key, fingerprint, status, body, headers)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING true
"""
"""For a hot endpoint that knows its answer beforehand: no row back means that it is a repetition.

Parameters: the claim's four members, status, body (bytes), headers (dict, a jsonb parameter). Put
it into the CTE of the effect, which then depends on the row that it returns.
"""


class KeyMalformed(DomainError):
    """Idempotency-Key has 1 to 255 printable characters."""

    status = 400
    code = "idempotency-key-malformed"
    ru = "Idempotency-Key: от 1 до 255 печатных символов."


class KeyRequired(DomainError):
    """Send an Idempotency-Key, so that this can be repeated safely."""

    status = 400
    code = "idempotency-key-required"
    ru = "Укажите Idempotency-Key, чтобы запрос можно было безопасно повторить."


class KeyReused(Invalid):
    """This Idempotency-Key was used for another request."""

    code = "idempotency-key-reused"
    ru = "Этот Idempotency-Key уже использован для другого запроса."


class RequestInFlight(Conflict):
    """The first request with this Idempotency-Key is still being carried out; try again."""

    code = "request-in-flight"
    ru = "Первый запрос с этим Idempotency-Key ещё выполняется; повторите позже."


@dataclass(frozen=True, slots=True)
class Claim:
    """One command of one caller.

    Attributes:
        route: Method and path, the ids in it included.
        fingerprint: sha256 of query and body.
    """

    principal: str
    route: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What the first request was answered."""

    status: int
    body: bytes
    headers: dict[str, str]

    def response(self) -> Response:
        """The same answer again, marked as a repetition."""
        return Response(self.body, self.status, {**self.headers, REPLAYED: "true"})


def fingerprint(query: bytes, body: bytes) -> bytes:
    """What two requests must have in common to be the same."""
    return hashlib.sha256(query + b"\n" + body if query else body).digest()


def key_of(request: Request) -> str | None:
    """The request's Idempotency-Key; quotes around it do not count.

    Raises:
        KeyMalformed: It is empty, too long or not printable.
    """
    given = request.headers.get(HEADER)
    if given is None:
        return None
    key = given.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 0 < len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
        raise KeyMalformed
    return key


async def claim_of(request: Request, principal: str) -> Claim | None:
    """The claim that a request makes; None when it has no Idempotency-Key."""
    key = key_of(request)
    if key is None:
        return None
    scope = request.scope
    return Claim(
        principal,
        f"{scope['method']} {scope['path']}",
        key,
        fingerprint(scope.get("query_string", b""), await request.body()),
    )


async def own_claim(request: Request) -> Claim | None:
    """The dependency of `OwnIdempotency`: the route then leaves the key to the endpoint."""
    principal = getattr(request.state, "principal", None)
    return await claim_of(request, principal.subject) if principal is not None else None


OwnIdempotency = Annotated[Claim | None, Depends(own_claim)]


async def demand_key(request: Request) -> None:
    """The dependency of `IdempotencyKeyRequired`.

    Raises:
        KeyRequired: There is none.
    """
    if key_of(request) is None:
        raise KeyRequired


IdempotencyKeyRequired = Depends(demand_key)


async def claim(session: AsyncSession, wanted: Claim) -> StoredAnswer | None:
    """Take the key in the session's transaction, or find what the first request was answered.

    Waits for a first request that is still running.

    Returns:
        None when the key is ours: carry out the command and `settle` it.

    Raises:
        KeyReused: It belongs to another request.
        RequestInFlight: The first request takes too long.
    """
    names = {
        "principal": wanted.principal,
        "route": wanted.route,
        "key": wanted.key,
    }
    try:
        taken = await session.scalar(_CLAIM_ORM, {**names, "fingerprint": wanted.fingerprint})
    except DBAPIError as error:
        if error.orig and isinstance(error.orig.__cause__, asyncpg.LockNotAvailableError):
            raise RequestInFlight from None
        raise
    if taken:
        return None
    row = (await session.execute(_READ_ORM, names)).one_or_none()
    return _stored(wanted, tuple(row) if row is not None else None)


async def settle(session: AsyncSession, wanted: Claim, response: Response) -> None:
    """Store the answer of a claimed command, in the transaction of its effect."""
    await session.execute(
        _SETTLE_ORM,
        {
            "principal": wanted.principal,
            "route": wanted.route,
            "key": wanted.key,
            "status": response.status_code,
            "body": bytes(response.body),
            "headers": orjson.dumps(kept_headers(response)).decode(),
        },
    )


async def stored_answer(connection: Connection, wanted: Claim) -> StoredAnswer:
    """What the first request was answered, for an endpoint whose `INSERT_ANSWERED` gave no row.

    Raises:
        KeyReused: The key belongs to another request.
        RequestInFlight: There is no answer yet.
    """
    row = await connection.fetchrow(_READ_BARE, wanted.principal, wanted.route, wanted.key)
    return _stored(wanted, tuple(row) if row is not None else None)


def _stored(
    wanted: Claim, row: tuple[bytes, int | None, bytes, dict[str, str]] | None
) -> StoredAnswer:
    if row is None:  # it was forgotten or rolled back between the two statements
        raise RequestInFlight
    known, status, body, headers = row
    if bytes(known) != wanted.fingerprint:
        raise KeyReused
    if status is None:
        raise RequestInFlight
    return StoredAnswer(status, bytes(body), headers or {})


def kept_headers(response: Response) -> dict[str, str]:
    """The headers of an answer that are part of it."""
    return {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
