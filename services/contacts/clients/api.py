"""HTTP in: client cards."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query
from fastapi import Request as HttpRequest
from pydantic import BaseModel, Field
from starlette.responses import Response

from libs.shared import audit, outbox
from libs.shared.database import Database
from libs.shared.errors import Invalid
from libs.shared.http import (
    CursorInvalid,
    CursorText,
    Db,
    IfMatch,
    Limit,
    Now,
    OwnIdempotency,
    Page,
    Request,
    Session,
    Text2000,
    demand_version,
    problems,
    router,
    set_etag,
)
from services.contacts.access import (
    BatchWriter,
    ClientNotYours,
    Reader,
    Supervisor,
    Writer,
    demand_changeable,
    demand_readable,
    owner_of_new,
)
from services.contacts.batches import BatchView, answer_once, body_of, parse, read_json
from services.contacts.clients import emails, phones, search
from services.contacts.clients.batch import ClientBatch, ClientBatchBody, create_many
from services.contacts.clients.card import (
    ArchiveClient,
    BirthdayInFuture,
    ChangeClient,
    ClientView,
    CreateClient,
    CreatedClientView,
    Status,
    changes_of,
    new_card,
)
from services.contacts.clients.creation import ClientExists, create
from services.contacts.clients.models import ClientIsArchived, ClientNotArchived, ClientNotFound
from services.contacts.clients.names import NameMissing, NameNotExpected
from services.contacts.clients.put_away import ArchiveClients, archive_many
from services.contacts.policies import phone_region

routes = router(prefix="/v1/clients", tags=["clients"])

_CARD_PROBLEMS = (
    *phones.REFUSALS,
    phones.PhoneRepeated,
    emails.EmailRefused,
    NameMissing,
    NameNotExpected,
    BirthdayInFuture,
)
_FOUND = (ClientNotFound, ClientNotYours)


class SourceMissing(Invalid):
    """An external id is unique within its source: name the source."""

    code = "source-missing"
    ru = "Внешний идентификатор уникален в пределах источника: укажите источник."


class GiveOwner(Request):
    """The manager who shall be responsible; null for nobody."""

    owner_id: UUID | None
    reason: Text2000 | None = None


class ArchivedView(BaseModel):
    """How many cards of a batch were put away, and which ones were not, by id."""

    archived: int
    refused: Annotated[dict[UUID, str], Field(description="Problem code by id.")]


async def _region(session: Session) -> str:
    return await phone_region(session)


Region = Annotated[str, Depends(_region)]


@routes.post(
    "",
    status_code=201,
    responses={
        201: {"model": CreatedClientView},
        **problems(ClientNotYours, ClientExists, SourceMissing, *_CARD_PROBLEMS),
    },
    openapi_extra=body_of(CreateClient),
    summary="Create a card",
)
async def create_client(request: HttpRequest, caller: Writer, claim: OwnIdempotency) -> Response:
    # Not by `Db` and `Now`: each dependency costs the hottest route as much as reading the body.
    database: Database = request.app.state.database
    now = request.app.state.clock.now()
    given = parse(CreateClient, await read_json(request))
    if given.external_id is not None and given.source is None:
        raise SourceMissing(pointer="/source")
    owner_id = owner_of_new(caller, given.owner_id)
    async with database.pool.acquire() as connection:
        region = await phone_region(connection)
        card = new_card(given, region=region, now=now)
        card.owner_id = owner_id
        response = await create(connection, card, claim)
    database.wake.ring()
    return response


@routes.post(
    "/batch",
    responses={200: {"model": BatchView}},
    openapi_extra=body_of(ClientBatchBody),
    summary="Create up to 1000 cards; what has an external id is never created twice",
)
async def create_clients(
    request: HttpRequest, _caller: BatchWriter, database: Db, now: Now, claim: OwnIdempotency
) -> Response:
    given = parse(ClientBatch, await read_json(request))

    async def work(tx: Any) -> bytes:
        region = await phone_region(tx)
        return await create_many(tx, given, region=region, now=now)

    return await answer_once(database, claim, work)


@routes.post("/archive", summary="Put up to 1000 cards away; those that cannot be are told")
async def archive_clients(
    given: ArchiveClients, caller: BatchWriter, session: Session, now: Now
) -> ArchivedView:
    archived, refused = await archive_many(session, given, by=caller.subject, now=now)
    return ArchivedView(archived=archived, refused=refused)


@routes.get(
    "",
    responses=problems(CursorInvalid, *phones.REFUSALS),
    summary="Find clients; a phone in any spelling, a name by any part of it",
)
async def list_clients(
    session: Session,
    caller: Reader,
    region: Region,
    phone: Annotated[str | None, Query(max_length=200)] = None,
    email: Annotated[str | None, Query(max_length=200)] = None,
    name: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    owner_id: UUID | None = None,
    status: Status | None = None,
    tag: Annotated[str | None, Query(max_length=50)] = None,
    segment: Annotated[str | None, Query(max_length=63)] = None,
    external_id: Annotated[str | None, Query(max_length=200)] = None,
    archived: bool = False,
    cursor: CursorText = None,
    limit: Limit = 50,
) -> Page[ClientView]:
    wanted = search.Wanted(
        phone=phone,
        email=email,
        name=name,
        owner_id=owner_id,
        status=status,
        tag=tag,
        segment=segment,
        external_id=external_id,
        archived=archived,
    )
    return await search.find_clients(
        session, wanted, caller=caller, region=region, cursor=cursor, limit=limit
    )


@routes.get("/{client_id}", responses=problems(*_FOUND), summary="One card")
async def show_client(
    client_id: UUID, session: Session, caller: Reader, response: Response
) -> ClientView:
    view = await search.find_view(session, client_id)
    demand_readable(caller, view.owner_id)
    set_etag(response, view.version)
    return view


@routes.patch(
    "/{client_id}",
    responses=problems(*_FOUND, ClientIsArchived, *_CARD_PROBLEMS),
    summary="Change what is named, leave the rest",
)
async def change_client(
    client_id: UUID,
    given: ChangeClient,
    expected: IfMatch,
    session: Session,
    caller: Writer,
    region: Region,
    now: Now,
    response: Response,
) -> ClientView:
    client = await search.find(session, client_id, lock=True)
    demand_changeable(caller, client.owner_id)
    demand_version(expected, client.version)
    client.demand_in_use()
    event = client.change(changes_of(given, client, region=region, now=now), at=now)
    if event is not None:
        await outbox.add(session, event)
    return await _answer(session, client_id, response)


@routes.put(
    "/{client_id}/owner",
    responses=problems(*_FOUND, ClientIsArchived),
    summary="Make a manager responsible; managers may take whom nobody has",
)
async def give_owner(
    client_id: UUID,
    given: GiveOwner,
    expected: IfMatch,
    session: Session,
    caller: Writer,
    now: Now,
    response: Response,
) -> ClientView:
    client = await search.find(session, client_id, lock=True)
    demand_changeable(caller, client.owner_id)
    owner_of_new(caller, given.owner_id)
    demand_version(expected, client.version)
    before = client.owner_id
    event = client.change({"owner_id": given.owner_id}, at=now)
    if event is not None:
        await outbox.add(session, event)
        await audit.record(
            session,
            action="client.owner_changed",
            subject_type="client",
            subject_id=str(client_id),
            details={
                "from": before,
                "to": given.owner_id,
                "version": client.version,
                "reason": given.reason,
            },
            at=now,
        )
    return await _answer(session, client_id, response)


@routes.post(
    "/{client_id}/archive",
    responses=problems(*_FOUND, ClientIsArchived),
    summary="Put a card away; all of it is kept",
)
async def archive_client(
    client_id: UUID,
    given: ArchiveClient,
    expected: IfMatch,
    session: Session,
    caller: Writer,
    now: Now,
    response: Response,
) -> ClientView:
    client = await search.find(session, client_id, lock=True)
    demand_changeable(caller, client.owner_id)
    demand_version(expected, client.version)
    await outbox.add(session, client.archive(reason=given.reason, at=now))
    return await _answer(session, client_id, response)


@routes.post(
    "/{client_id}/restore",
    responses=problems(*_FOUND, ClientNotArchived),
    summary="Take an archived card into use again",
)
async def restore_client(
    client_id: UUID,
    expected: IfMatch,
    session: Session,
    caller: Supervisor,
    now: Now,
    response: Response,
) -> ClientView:
    client = await search.find(session, client_id, lock=True)
    demand_changeable(caller, client.owner_id)
    demand_version(expected, client.version)
    await outbox.add(session, client.restore(at=now))
    return await _answer(session, client_id, response)


async def _answer(session: Session, client_id: UUID, response: Response) -> ClientView:
    view = await search.find_view(session, client_id)
    set_etag(response, view.version)
    return view
