"""HTTP in: deals that are open, and batches of those that are over."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from fastapi import Request as HttpRequest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared import outbox, policies
from libs.shared.errors import Invalid
from libs.shared.http import (
    Code,
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
    Text50,
    Text200,
    page_of,
    problems,
    router,
)
from libs.shared.ids import new_id
from services.contacts.access import BatchWriter, ClientNotYours, Reader, Writer, demand_readable
from services.contacts.batches import (
    BatchRefused,
    BatchView,
    answer_once,
    body_of,
    parse,
    read_json,
)
from services.contacts.clients import search
from services.contacts.clients.models import ClientIsArchived, ClientNotFound
from services.contacts.deals.batch import DealBatch, DealBatchBody, close_many
from services.contacts.deals.finding import DealView, find, find_to_change, told, view
from services.contacts.deals.models import ClosedInFuture, Deal, DealIsClosed, DealNotFound
from services.contacts.policies import Pipeline, PipelinePolicy

routes = router(prefix="/v1", tags=["deals"])

_OF_CLIENT = (ClientNotFound, ClientNotYours)
_FOUND = (DealNotFound, ClientNotYours)


class PipelineUnknown(Invalid):
    """There is no pipeline with this code."""

    code = "pipeline-unknown"
    ru = "Такой воронки нет."


class StageUnknown(Invalid):
    """The pipeline has no stage with this code."""

    code = "stage-unknown"
    ru = "В воронке нет такого этапа."


class OpenDeal(Request):
    """A deal that begins; by default in the first stage of the first pipeline."""

    title: Text200 | None = None
    pipeline: Code | None = None
    stage: Code | None = None
    opened_at: Instant | None = None
    source: Text50 | None = None


class MoveDeal(Request):
    """The stage to bring the deal to, forward or back."""

    stage: Code


@routes.post(
    "/clients/{client_id}/deals",
    status_code=201,
    responses=problems(
        *_OF_CLIENT, ClientIsArchived, PipelineUnknown, StageUnknown, ClosedInFuture
    ),
    summary="Open a deal",
)
async def open_deal(
    client_id: UUID, given: OpenDeal, session: Session, caller: Writer, now: Now, response: Response
) -> DealView:
    client = await search.find_to_write_for(session, client_id, caller)
    pipeline = await _pipeline(session, given.pipeline)
    opened_at = given.opened_at or now
    if opened_at > now:
        raise ClosedInFuture("A deal cannot begin in the future", pointer="/opened_at")
    deal = Deal(
        id=new_id(),
        client_id=client_id,
        version=1,
        state="open",
        title=given.title,
        pipeline=pipeline.code,
        stage=_stage(pipeline, given.stage),
        returned_minor=0,
        manager_id=caller.manager_id or client.owner_id,
        opened_at=opened_at,
        source=given.source,
        created_at=now,
    )
    session.add(deal)
    await outbox.add(session, deal.opened())
    response.headers["Location"] = f"/v1/deals/{deal.id}"
    return told(deal, response)


@routes.get(
    "/clients/{client_id}/deals",
    responses=problems(*_OF_CLIENT, CursorInvalid),
    summary="A client's deals, the newest first",
)
async def list_deals(
    client_id: UUID,
    session: Session,
    caller: Reader,
    state: Annotated[str | None, Query(pattern="^(open|won|lost)$")] = None,
    cursor: CursorText = None,
    limit: Limit = 50,
) -> Page[DealView]:
    client = await search.find(session, client_id)
    demand_readable(caller, client.owner_id)
    filters = {"client_id": client_id, "state": state}
    query = select(Deal).where(Deal.client_id == client_id)
    if state is not None:
        query = query.where(Deal.state == state)
    if last := Cursor.decode(cursor, tuple[UUID], filters):
        query = query.where(Deal.id < last[0])
    rows = (await session.scalars(query.order_by(Deal.id.desc()).limit(limit + 1))).all()
    return page_of(
        rows, limit=limit, view=view, sort_values=lambda deal: [deal.id], filters=filters
    )


@routes.post(
    "/deals/batch",
    responses={200: {"model": BatchView}, **problems(BatchRefused)},
    openapi_extra=body_of(DealBatchBody),
    summary="Bring up to 5000 deals that are over; what has an external id is never brought twice",
)
async def close_deals(
    request: HttpRequest, _caller: BatchWriter, database: Db, now: Now, claim: OwnIdempotency
) -> Response:
    given = parse(DealBatch, await read_json(request))

    async def work(tx: Any) -> bytes:
        return await close_many(tx, given, now=now)

    return await answer_once(database, claim, work)


@routes.get("/deals/{deal_id}", responses=problems(*_FOUND), summary="One deal")
async def show_deal(
    deal_id: UUID, session: Session, caller: Reader, response: Response
) -> DealView:
    deal, client = await find(session, deal_id)
    demand_readable(caller, client.owner_id)
    return told(deal, response)


@routes.post(
    "/deals/{deal_id}/stage",
    responses=problems(*_FOUND, DealIsClosed, StageUnknown),
    summary="Bring a deal to another stage",
)
async def move_deal(
    deal_id: UUID,
    given: MoveDeal,
    expected: IfMatch,
    session: Session,
    caller: Writer,
    now: Now,
    response: Response,
) -> DealView:
    deal = await find_to_change(session, deal_id, caller, expected)
    stage = _stage(await _pipeline(session, deal.pipeline), given.stage)
    event = deal.move(stage, at=now)
    if event is not None:
        await outbox.add(session, event)
    return told(deal, response)


async def _pipeline(session: AsyncSession, code: str | None) -> Pipeline:
    policy = (await policies.current(session, PipelinePolicy)).body
    pipeline = policy.pipelines[0] if code is None else policy.pipeline(code)
    if pipeline is None:
        known = [one.code for one in policy.pipelines]
        raise PipelineUnknown(pointer="/pipeline", known=known)
    return pipeline


def _stage(pipeline: Pipeline, code: str | None) -> str:
    known = [stage.code for stage in pipeline.stages]
    if code is not None and code not in known:
        raise StageUnknown(pointer="/stage", known=known)
    return code or known[0]
