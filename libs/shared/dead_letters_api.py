"""The dead letters of a service over HTTP: look at them, mend them, replay or discard them."""

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared import audit
from libs.shared.auth import Principal, Role, require
from libs.shared.dead_letters import State
from libs.shared.errors import Conflict, NotFound
from libs.shared.field_types import Text2000
from libs.shared.pagination import Cursor, CursorText, Limit, Page, page_of
from libs.shared.problems import problems
from libs.shared.request_bodies import Request
from libs.shared.routes import Now, Session, router

Operator = Annotated[Principal, Depends(require(Role.ADMIN, Role.SUPERVISOR))]


class DeadLetterNotFound(NotFound):
    """There is no dead letter with this id."""

    code = "dead-letter-not-found"
    ru = "Такого отложенного события нет."


class DeadLetterSettled(Conflict):
    """Only a poison can be replayed or discarded; this one waits, is being replayed or is done."""

    code = "dead-letter-settled"
    ru = "Повторить или отбросить можно только само испорченное событие."


class DeadLetterView(BaseModel):
    """An event that was laid aside."""

    id: int
    event_id: UUID
    topic: str
    partition: int
    offset: int
    key: str | None
    type: str
    state: State
    reason: str
    attempts: int
    received_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None


class DeadLetterDetail(DeadLetterView):
    """With the event itself: `data` when it is JSON, `data_base64` always; null is a tombstone."""

    headers: list[tuple[str, str]]
    data: Any = None
    data_base64: str | None = None


class ReplayDeadLetter(Request):
    """Handle it again; `data` replaces the event's own where that was the fault."""

    data: dict[str, Any] | None = None


class DiscardDeadLetter(Request):
    """Give it up for good; the events that wait behind it go on."""

    reason: Text2000


_LIST = text(
    "SELECT * FROM dead_letters WHERE (CAST(:state AS text) IS NULL OR state = :state)"
    " AND (CAST(:key AS text) IS NULL OR key = :key)"
    " AND (CAST(:before AS bigint) IS NULL OR id < :before) ORDER BY id DESC LIMIT :limit"
)
_FIND = text("SELECT * FROM dead_letters WHERE id = :id FOR UPDATE")
_REPLAY = text(
    "UPDATE dead_letters SET state = 'replaying', data = coalesce(:data, data), resolved_by = :by"
    " WHERE id = :id"
)
_DISCARD = text(
    "UPDATE dead_letters SET state = 'discarded', resolved_at = :at, resolved_by = :by"
    " WHERE id = :id"
)


def dead_letters_router() -> APIRouter:
    """Routes under /v1/dead-letters, for supervisors and admins."""
    routes = router(prefix="/v1/dead-letters", tags=["dead letters"])

    @routes.get("", response_model=Page[DeadLetterView], summary="List dead letters, newest first")
    async def list_dead_letters(
        session: Session,
        _user: Operator,
        state: State | None = None,
        key: Annotated[str | None, Query(max_length=200)] = None,
        cursor: CursorText = None,
        limit: Limit = 50,
    ) -> Page[DeadLetterView]:
        filters = {"state": state, "key": key}
        after = Cursor.decode(cursor, tuple[int], filters)
        values = {**filters, "before": after[0] if after else None, "limit": limit + 1}
        rows: Sequence[Any] = (await session.execute(_LIST, values)).mappings().all()
        return page_of(
            rows,
            limit=limit,
            view=lambda row: DeadLetterView(**row),
            sort_values=lambda row: [row["id"]],
            filters=filters,
        )

    @routes.get(
        "/{dead_letter_id}",
        response_model=DeadLetterDetail,
        responses=problems(DeadLetterNotFound),
        summary="Show one with the event itself",
    )
    async def show_dead_letter(
        dead_letter_id: int, session: Session, _user: Operator
    ) -> DeadLetterDetail:
        return _detail(await _find(session, dead_letter_id))

    @routes.post(
        "/{dead_letter_id}/replay",
        response_model=DeadLetterView,
        status_code=202,
        responses=problems(DeadLetterNotFound, DeadLetterSettled),
        summary="Handle it again, and then those behind it",
    )
    async def replay_dead_letter(
        dead_letter_id: int, wish: ReplayDeadLetter, session: Session, user: Operator, now: Now
    ) -> DeadLetterView:
        row = await _find_poison(session, dead_letter_id)
        data = orjson.dumps(wish.data) if wish.data is not None else None
        await session.execute(_REPLAY, {"id": row["id"], "data": data, "by": user.subject})
        await _note(session, "dead_letter.replayed", row, now, {"mended": data is not None})
        return DeadLetterView(**(row | {"state": "replaying", "resolved_by": user.subject}))

    @routes.post(
        "/{dead_letter_id}/discard",
        response_model=DeadLetterView,
        responses=problems(DeadLetterNotFound, DeadLetterSettled),
        summary="Give it up; those behind it go on",
    )
    async def discard_dead_letter(
        dead_letter_id: int, wish: DiscardDeadLetter, session: Session, user: Operator, now: Now
    ) -> DeadLetterView:
        row = await _find_poison(session, dead_letter_id)
        await session.execute(_DISCARD, {"id": row["id"], "at": now, "by": user.subject})
        await _note(session, "dead_letter.discarded", row, now, {"reason": wish.reason})
        changed = {"state": "discarded", "resolved_at": now, "resolved_by": user.subject}
        return DeadLetterView(**(row | changed))

    return routes


async def _find(session: AsyncSession, dead_letter_id: int) -> dict[str, Any]:
    if not 0 < dead_letter_id < 2**63:
        raise DeadLetterNotFound
    row = (await session.execute(_FIND, {"id": dead_letter_id})).mappings().one_or_none()
    if row is None:
        raise DeadLetterNotFound
    return dict(row)


async def _find_poison(session: AsyncSession, dead_letter_id: int) -> dict[str, Any]:
    row = await _find(session, dead_letter_id)
    if row["state"] != "poison":
        raise DeadLetterSettled(state=row["state"])
    return row


async def _note(
    session: AsyncSession, action: str, row: dict[str, Any], now: datetime, details: dict[str, Any]
) -> None:
    await audit.record(
        session,
        action=action,
        subject_type="dead_letter",
        subject_id=str(row["id"]),
        at=now,
        details={"type": row["type"], "key": row["key"], **details},
    )


def _detail(row: dict[str, Any]) -> DeadLetterDetail:
    raw: bytes | None = row["data"]
    try:
        data = orjson.loads(raw) if raw is not None else None
    except orjson.JSONDecodeError:
        data = None
    encoded = base64.b64encode(raw).decode() if raw is not None else None
    return DeadLetterDetail(**(row | {"data": data, "data_base64": encoded}))
