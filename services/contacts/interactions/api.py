"""HTTP in: what happened between a client and us: recording it, the timeline."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from fastapi import Request as HttpRequest
from starlette.responses import Response

from libs.shared import outbox
from libs.shared.database import bare
from libs.shared.http import (
    Cursor,
    CursorInvalid,
    CursorText,
    Db,
    Limit,
    Now,
    OwnIdempotency,
    Page,
    Session,
    page_of,
    problems,
    router,
)
from services.contacts.access import (
    BatchWriter,
    ClientNotYours,
    HistoryReader,
    Writer,
    demand_readable,
)
from services.contacts.batches import BatchView, answer_once, body_of, parse, read_json
from services.contacts.clients import search
from services.contacts.clients.models import ClientIsArchived, ClientNotFound
from services.contacts.interactions.complaints import give_complaints
from services.contacts.interactions.finding import (
    InteractionView,
    find,
    promises_by_interaction,
    timeline,
    told,
    view,
)
from services.contacts.interactions.models import HappenedInFuture, InteractionNotFound
from services.contacts.interactions.recording import (
    InteractionBatch,
    InteractionBatchBody,
    RecordInteraction,
    promises_of,
    record_many,
    recorded,
)

routes = router(prefix="/v1", tags=["interactions"])

_OF_CLIENT = (ClientNotFound, ClientNotYours)
_FOUND = (InteractionNotFound, ClientNotYours)


@routes.post(
    "/clients/{client_id}/interactions",
    status_code=201,
    responses=problems(*_OF_CLIENT, ClientIsArchived, HappenedInFuture),
    summary="Record what happened, promises included",
)
async def record_interaction(
    client_id: UUID,
    given: RecordInteraction,
    session: Session,
    caller: Writer,
    now: Now,
    response: Response,
) -> InteractionView:
    client = await search.find_to_write_for(session, client_id, caller)
    manager_id = caller.manager_id or client.owner_id
    made = recorded(given, client_id, manager_id=manager_id, by=caller.subject, now=now)
    session.add(made)
    await session.flush()
    promises = promises_of(given.promises, made)
    session.add_all(promises)
    await outbox.add(session, made.recorded(promises))
    await give_complaints(await bare(session), [made], now=now)
    return told(made, promises, response, new=True)


@routes.get(
    "/clients/{client_id}/interactions",
    responses=problems(*_OF_CLIENT, CursorInvalid),
    summary="A client's timeline, the newest first",
)
async def show_timeline(
    client_id: UUID,
    session: Session,
    caller: HistoryReader,
    kind: Annotated[str | None, Query(max_length=20)] = None,
    cursor: CursorText = None,
    limit: Limit = 50,
) -> Page[InteractionView]:
    client = await search.find(session, client_id)
    demand_readable(caller, client.owner_id)
    filters = {"client_id": client_id, "kind": kind}
    last = Cursor.decode(cursor, tuple[datetime, UUID], filters)
    rows = await timeline(session, client_id, kind=kind, after=last, limit=limit + 1)
    promised = await promises_by_interaction(session, rows)
    return page_of(
        rows,
        limit=limit,
        view=lambda row: view(row, promised.get(row.id, ())),
        sort_values=lambda row: [row.at, row.id],
        filters=filters,
    )


@routes.post(
    "/interactions/batch",
    responses={200: {"model": BatchView}},
    openapi_extra=body_of(InteractionBatchBody),
    summary="Record up to 1000 interactions; what has an external id is never recorded twice",
)
async def record_interactions(
    request: HttpRequest, caller: BatchWriter, database: Db, now: Now, claim: OwnIdempotency
) -> Response:
    given = parse(InteractionBatch, await read_json(request))

    async def work(tx: Any) -> bytes:
        return await record_many(tx, given, by=caller.subject, now=now)

    return await answer_once(database, claim, work)


@routes.get("/interactions/{interaction_id}", responses=problems(*_FOUND), summary="One entry")
async def show_interaction(
    interaction_id: UUID, session: Session, caller: HistoryReader, response: Response
) -> InteractionView:
    found, client = await find(session, interaction_id)
    demand_readable(caller, client.owner_id)
    promised = await promises_by_interaction(session, [found])
    return told(found, promised.get(found.id, ()), response)
