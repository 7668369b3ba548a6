"""HTTP in: interactions, planned and recorded, the timeline, promises."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query
from fastapi import Request as HttpRequest
from pydantic import BaseModel, Field
from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared import outbox
from libs.shared.auth import Principal
from libs.shared.errors import PreconditionFailed
from libs.shared.http import (
    ANY_VERSION,
    CalendarDay,
    Cursor,
    CursorInvalid,
    CursorText,
    Db,
    IfMatch,
    Instant,
    Limit,
    Now,
    OwnIdempotency,
    Page,
    Request,
    Session,
    Text2000,
    Text20000,
    page_of,
    problems,
    router,
    set_etag,
)
from libs.shared.ids import new_id
from services.contacts.access import (
    BatchWriter,
    ClientNotYours,
    HistoryReader,
    Reader,
    Writer,
    demand_changeable,
    demand_readable,
    sees_all,
)
from services.contacts.batches import BatchView, answer_once, body_of, parse, read_json
from services.contacts.clients import search
from services.contacts.clients.models import Client, ClientIsArchived, ClientNotFound
from services.contacts.interactions.models import (
    HappenedInFuture,
    Interaction,
    InteractionNotFound,
    InteractionNotPlanned,
    Promise,
    PromiseIsKept,
    PromiseNotFound,
    StartsInPast,
    demand_future,
)
from services.contacts.interactions.recording import (
    InteractionBatch,
    InteractionBatchBody,
    MakePromise,
    Minutes,
    RecordInteraction,
    Texts,
    promises_of,
    record_many,
    recorded,
)

routes = router(prefix="/v1", tags=["interactions"])

_OF_CLIENT = (ClientNotFound, ClientNotYours)
_FOUND = (InteractionNotFound, ClientNotYours)


class PlanInteraction(Request):
    """A meeting or call to come."""

    kind: Literal["meeting", "call"]
    starts_at: Instant
    duration_minutes: Minutes | None = None
    topic: Annotated[str, Field(max_length=2000)] = ""
    manager_id: UUID | None = None


class MoveInteraction(Request):
    """Another time, and why."""

    starts_at: Instant
    reason: Text2000


class CancelInteraction(Request):
    """Why it will not happen."""

    reason: Text2000


class HoldInteraction(Request):
    """What came of it; it took place now unless another time is said."""

    outcome: Text20000
    held_at: Instant | None = None
    objections: Texts = Field(default_factory=list)
    agreements: Texts = Field(default_factory=list)
    promises: Annotated[list[MakePromise], Field(max_length=50)] = Field(default_factory=list)


class PromiseView(BaseModel):
    """What was promised to a client until a day."""

    id: UUID
    interaction_id: UUID
    client_id: UUID
    owner_id: UUID | None
    text: str
    due_on: date
    kept_at: datetime | None


class InteractionView(BaseModel):
    """One entry of a timeline; `at` is when it happened or starts."""

    id: UUID
    client_id: UUID
    version: int
    kind: str
    state: str
    direction: str
    at: datetime
    duration_minutes: int | None
    topic: str
    outcome: str | None
    objections: list[str]
    agreements: list[str]
    manager_id: UUID | None
    moves: int
    reason: str | None
    recorded_by: str
    promises: list[PromiseView]


def view(interaction: Interaction, promises: Sequence[Promise] = ()) -> InteractionView:
    """An entry as answers carry it."""
    names = InteractionView.model_fields.keys() - {"promises"}
    shown = [PromiseView.model_validate(one, from_attributes=True) for one in promises]
    return InteractionView(**{name: getattr(interaction, name) for name in names}, promises=shown)


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
    client = await _client_to_change(session, client_id, caller)
    manager_id = caller.manager_id or client.owner_id
    made = recorded(given, client_id, manager_id=manager_id, by=caller.subject, now=now)
    session.add(made)
    await session.flush()
    promises = promises_of(given.promises, made)
    session.add_all(promises)
    await outbox.add(session, made.recorded())
    return _made(made, promises, response)


@routes.post(
    "/clients/{client_id}/interactions/plan",
    status_code=201,
    responses=problems(*_OF_CLIENT, ClientIsArchived, StartsInPast),
    summary="Plan a meeting or call",
)
async def plan_interaction(
    client_id: UUID,
    given: PlanInteraction,
    session: Session,
    caller: Writer,
    now: Now,
    response: Response,
) -> InteractionView:
    client = await _client_to_change(session, client_id, caller)
    demand_future(given.starts_at, now=now)
    made = Interaction(
        id=new_id(),
        client_id=client_id,
        version=1,
        kind=given.kind,
        state="planned",
        direction="none",
        at=given.starts_at,
        duration_minutes=given.duration_minutes,
        topic=given.topic,
        objections=[],
        agreements=[],
        manager_id=given.manager_id or caller.manager_id or client.owner_id,
        moves=0,
        recorded_by=caller.subject,
        created_at=now,
    )
    session.add(made)
    await outbox.add(session, made.planned())
    return _made(made, (), response)


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
    promised = await _promises_of(session, rows)
    return page_of(
        rows,
        limit=limit,
        view=lambda row: view(row, promised.get(row.id, ())),
        sort_values=lambda row: [row.at, row.id],
        filters=filters,
    )


async def timeline(
    session: AsyncSession,
    client_id: UUID,
    *,
    kind: str | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int,
) -> Sequence[Interaction]:
    """Entries of a client, the newest first."""
    query = select(Interaction).where(Interaction.client_id == client_id)
    if kind is not None:
        query = query.where(Interaction.kind == kind)
    if after is not None:
        query = query.where(tuple_(Interaction.at, Interaction.id) < tuple_(*after))
    order = (Interaction.at.desc(), Interaction.id.desc())
    return (await session.scalars(query.order_by(*order).limit(limit))).all()


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
    found, client = await _find(session, interaction_id)
    demand_readable(caller, client.owner_id)
    promised = await _promises_of(session, [found])
    return _made(found, promised.get(found.id, ()), response, new=False)


@routes.post(
    "/interactions/{interaction_id}/move",
    responses=problems(*_FOUND, InteractionNotPlanned, StartsInPast, ClientIsArchived),
    summary="Give a planned one another time",
)
async def move_interaction(
    interaction_id: UUID,
    given: MoveInteraction,
    expected: IfMatch,
    session: Session,
    caller: Writer,
    now: Now,
    response: Response,
) -> InteractionView:
    found = await _find_to_change(session, interaction_id, caller, expected)
    await outbox.add(session, found.move(given.starts_at, reason=given.reason, at=now))
    return _made(found, (), response, new=False)


@routes.post(
    "/interactions/{interaction_id}/cancel",
    responses=problems(*_FOUND, InteractionNotPlanned, ClientIsArchived),
    summary="Call a planned one off; the reason is mandatory",
)
async def cancel_interaction(
    interaction_id: UUID,
    given: CancelInteraction,
    expected: IfMatch,
    session: Session,
    caller: Writer,
    now: Now,
    response: Response,
) -> InteractionView:
    found = await _find_to_change(session, interaction_id, caller, expected)
    await outbox.add(session, found.cancel(reason=given.reason, at=now))
    return _made(found, (), response, new=False)


@routes.post(
    "/interactions/{interaction_id}/held",
    responses=problems(*_FOUND, InteractionNotPlanned, HappenedInFuture, ClientIsArchived),
    summary="Note that a planned one took place, and what came of it",
)
async def hold_interaction(
    interaction_id: UUID,
    given: HoldInteraction,
    expected: IfMatch,
    session: Session,
    caller: Writer,
    now: Now,
    response: Response,
) -> InteractionView:
    found = await _find_to_change(session, interaction_id, caller, expected)
    event = found.hold(outcome=given.outcome, held_at=given.held_at or now, at=now)
    found.objections, found.agreements = given.objections, given.agreements
    promises = promises_of(given.promises, found)
    session.add_all(promises)
    await outbox.add(session, event)
    return _made(found, promises, response, new=False)


@routes.get(
    "/promises",
    responses=problems(CursorInvalid),
    summary="Promises that are still open, the most urgent first",
)
async def list_promises(
    session: Session,
    caller: Reader,
    owner_id: UUID | None = None,
    due_before: CalendarDay | None = None,
    client_id: UUID | None = None,
    cursor: CursorText = None,
    limit: Limit = 50,
) -> Page[PromiseView]:
    if not sees_all(caller):
        owner_id = caller.manager_id or new_id()  # a manager without an id has promised nothing
    filters = {"owner_id": owner_id, "due_before": due_before, "client_id": client_id}
    query = select(Promise).where(Promise.kept_at.is_(None))
    if owner_id is not None:
        query = query.where(Promise.owner_id == owner_id)
    if due_before is not None:
        query = query.where(Promise.due_on < due_before)
    if client_id is not None:
        query = query.where(Promise.client_id == client_id)
    if last := Cursor.decode(cursor, tuple[date, UUID], filters):
        query = query.where(tuple_(Promise.due_on, Promise.id) > tuple_(*last))
    query = query.order_by(Promise.due_on, Promise.id).limit(limit + 1)
    return page_of(
        (await session.scalars(query)).all(),
        limit=limit,
        view=lambda row: PromiseView.model_validate(row, from_attributes=True),
        sort_values=lambda row: [row.due_on, row.id],
        filters=filters,
    )


@routes.post(
    "/promises/{promise_id}/keep",
    responses=problems(PromiseNotFound, PromiseIsKept, ClientNotYours),
    summary="Note that a promise is kept",
)
async def keep_promise(promise_id: UUID, session: Session, caller: Writer, now: Now) -> PromiseView:
    query = select(Promise).where(Promise.id == promise_id).with_for_update(key_share=True)
    promise = await session.scalar(query)
    if promise is None:
        raise PromiseNotFound(promise_id=str(promise_id))
    client = await search.find(session, promise.client_id)
    demand_changeable(caller, client.owner_id)
    promise.keep(at=now)
    await session.flush()
    return PromiseView.model_validate(promise, from_attributes=True)


def _made(
    interaction: Interaction, promises: Sequence[Promise], response: Response, *, new: bool = True
) -> InteractionView:
    set_etag(response, interaction.version)
    if new:
        response.headers["Location"] = f"/v1/interactions/{interaction.id}"
    return view(interaction, promises)


async def _promises_of(
    session: AsyncSession, rows: Sequence[Interaction]
) -> dict[UUID, list[Promise]]:
    wanted = [row.id for row in rows]
    query = select(Promise).where(Promise.interaction_id.in_(wanted)).order_by(Promise.id)
    found: dict[UUID, list[Promise]] = {}
    for promise in await session.scalars(query):
        found.setdefault(promise.interaction_id, []).append(promise)
    return found


async def _client_to_change(session: AsyncSession, client_id: UUID, caller: Principal) -> Client:
    client = await search.find(session, client_id)
    demand_changeable(caller, client.owner_id)
    client.demand_in_use()
    return client


async def _find(
    session: AsyncSession, interaction_id: UUID, *, lock: bool = False
) -> tuple[Interaction, Client]:
    query = select(Interaction).where(Interaction.id == interaction_id)
    found = await session.scalar(query.with_for_update(key_share=True) if lock else query)
    if found is None:
        raise InteractionNotFound(interaction_id=str(interaction_id))
    return found, await search.find(session, found.client_id)


async def _find_to_change(
    session: AsyncSession, interaction_id: UUID, caller: Principal, expected: int
) -> Interaction:
    found, client = await _find(session, interaction_id, lock=True)
    demand_changeable(caller, client.owner_id)
    if expected not in (ANY_VERSION, found.version):
        raise PreconditionFailed(current_version=found.version)
    client.demand_in_use()
    return found
