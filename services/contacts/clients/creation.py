"""One new card, in one statement.

Creating a card is the hottest door of contacts, so card, event, idempotency key and the look for
possible duplicates are one statement in autocommit: atomic, and twice as fast as a transaction.
The answer holds the duplicates, which only the statement knows, so it completes the stored answer.
"""

from typing import Any
from uuid import UUID

import asyncpg
import orjson
from starlette.responses import Response

from libs.shared import failpoints, idempotency, outbox
from libs.shared.database import Connection
from libs.shared.errors import Conflict
from libs.shared.events import ClientCreated
from services.contacts.clients import card as cards
from services.contacts.clients.card import NewCard
from services.contacts.clients.models import card_of

MAX_DUPLICATES = 20

COLUMNS = (
    *("id", "version", "kind", "full_name", "short_name", "name_search", "owner_id", "status"),
    *("phones", "email", "email_search", "messengers", "address", "tags", "note", "source"),
    *("external_id", "birthday", "language", "created_at", "changed_at"),
)
_PHONES, _EMAIL = COLUMNS.index("phones") + 1, COLUMNS.index("email_search") + 1
_SAID = len(COLUMNS)
_KEY = _SAID + 12


def _places(first: int, count: int) -> str:
    return ", ".join(f"${number}" for number in range(first, first + count))


_DUPLICATES = f"""
    same AS MATERIALIZED (
        SELECT cards_sharing(${_PHONES}::text[], ${_EMAIL}, {MAX_DUPLICATES}) AS ids
    )"""
_INSERT = f"""
    card AS (INSERT INTO clients ({", ".join(COLUMNS)}) SELECT {_places(1, _SAID)} FROM {{after}}),
    said AS (
        INSERT INTO outbox (shard, event_id, topic, also_topic, key, type, time, data,
            correlation_id, causation_id, traceparent)
        SELECT {_places(_SAID + 1, 11)} FROM {{after}}
    )
    SELECT ids FROM {{after}}"""
_CREATE = f"WITH {_DUPLICATES}, {_INSERT.format(after='same')}"
_CREATE_ONCE = f"""
    WITH {_DUPLICATES},
    first AS (
        INSERT INTO idempotency_keys (principal, route, key, fingerprint, status, body, headers)
        SELECT ${_KEY}, ${_KEY + 1}, ${_KEY + 2}, ${_KEY + 3}, 201,
            ${_KEY + 4}::bytea || convert_to(ids, 'UTF8') || '}}'::bytea, ${_KEY + 5}
        FROM same ON CONFLICT DO NOTHING RETURNING true
    ),
    mine AS (SELECT ids FROM same, first),
    {_INSERT.format(after="mine")}"""


class ClientExists(Conflict):
    """There is a card with this external id of this source already."""

    code = "client-exists"
    ru = "Карточка с этим внешним идентификатором уже есть."


async def create(
    connection: Connection, card: NewCard, claim: idempotency.Claim | None
) -> Response:
    """Store a card, say client.created and answer; a repeat gets the first answer.

    Raises:
        ClientExists: Its external id is taken.
        KeyReused: The idempotency key belongs to another request.
    """
    values = [*_values(card), *outbox.row_of(created(card))]
    headers = {"etag": '"1"', "location": f"/v1/clients/{card.id}"}
    begun = (
        orjson.dumps(cards.shown(card), option=orjson.OPT_UTC_Z)[:-1] + b',"possible_duplicates":'
    )
    try:
        if claim is None:
            ids = await connection.fetchval(_CREATE, *values)
        else:
            told = {**headers, "content-type": "application/json"}
            ids = await connection.fetchval(_CREATE_ONCE, *values, *_key(claim, begun, told))
    except asyncpg.UniqueViolationError as error:
        raise await _exists(connection, card) from error
    failpoints.reach("create.committed")
    if ids is None and claim is not None:
        return (await idempotency.stored_answer(connection, claim)).response()
    body = begun + str(ids).encode() + b"}"
    return Response(body, 201, headers, media_type="application/json")


def created(card: NewCard) -> ClientCreated:
    """The event of a new card."""
    return ClientCreated(
        client_id=card.id, version=1, card=card_of(card), occurred_at=card.created_at
    )


def _values(card: NewCard) -> list[Any]:
    return [getattr(card, name) for name in COLUMNS]


def _key(claim: idempotency.Claim, begun: bytes, headers: dict[str, str]) -> tuple[Any, ...]:
    return (claim.principal, claim.route, claim.key, claim.fingerprint, begun, headers)


async def _exists(connection: Connection, card: NewCard) -> ClientExists:
    found: UUID | None = await connection.fetchval(
        "SELECT id FROM clients WHERE source = $1 AND external_id = $2",
        card.source,
        card.external_id,
    )
    return ClientExists(client_id=str(found) if found else None)
