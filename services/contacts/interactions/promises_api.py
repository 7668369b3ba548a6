"""HTTP in: what was promised to clients, until it is kept."""

from datetime import date
from uuid import UUID

from sqlalchemy import select, tuple_

from libs.shared.http import (
    CalendarDay,
    Cursor,
    CursorInvalid,
    CursorText,
    Limit,
    Now,
    Page,
    Session,
    page_of,
    problems,
    router,
)
from libs.shared.ids import new_id
from services.contacts.access import ClientNotYours, Reader, Writer, demand_changeable, sees_all
from services.contacts.clients import search
from services.contacts.interactions.finding import PromiseView, promise_view
from services.contacts.interactions.models import Promise, PromiseIsKept, PromiseNotFound

routes = router(prefix="/v1", tags=["interactions"])


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
        view=promise_view,
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
    return promise_view(promise)
