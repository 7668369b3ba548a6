"""Who changed what: an append-only record, written in the transaction of the change.

The database refuses to change or delete a row. Details hold ids and versions, no personal data.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared import context
from libs.shared.auth import Role, require
from libs.shared.database import Connection, dumps
from libs.shared.pagination import Cursor, CursorInvalid, CursorText, Limit, Page, page_of
from libs.shared.problems import problems
from libs.shared.routes import Session, router

_COLUMNS = "at, actor, action, subject_type, subject_id, details, correlation_id"
_INSERT_BARE = f"INSERT INTO audit_log ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)"
_INSERT_ORM = text(
    f"INSERT INTO audit_log ({_COLUMNS}) VALUES (:at, :actor, :action, :subject_type, :subject_id,"
    " CAST(:details AS jsonb), :correlation_id)"
)
_LIST = text(
    f"""
    SELECT id, {_COLUMNS} FROM audit_log
    WHERE (CAST(:after AS bigint) IS NULL OR id < :after)
      AND (CAST(:subject_type AS text) IS NULL OR subject_type = :subject_type)
      AND (CAST(:subject_id AS text) IS NULL OR subject_id = :subject_id)
      AND (CAST(:actor AS text) IS NULL OR actor = :actor)
      AND (CAST(:action AS text) IS NULL OR action = :action)
    ORDER BY id DESC LIMIT :limit
    """
).columns(details=JSONB)


async def record(
    where: "AsyncSession | Connection",
    *,
    action: str,
    subject_type: str,
    subject_id: str,
    at: datetime,
    details: Mapping[str, Any] | None = None,
    actor: str | None = None,
) -> None:
    """Write down one change, in the transaction of `where`.

    Args:
        action: Subject and past participle, as in `policy.changed`.
        details: JSON-ready, without personal data.
        actor: By default the caller bound in the context, "system" where there is none.
    """
    now = context.current()
    actor = actor or now.actor or "system"
    if isinstance(where, AsyncSession):
        values = {"at": at, "actor": actor, "action": action, "subject_type": subject_type}
        values |= {"subject_id": subject_id, "details": dumps(dict(details or {}))}
        values |= {"correlation_id": now.correlation_id}
        await where.execute(_INSERT_ORM, values)
        return
    await where.execute(
        _INSERT_BARE,
        *(at, actor, action, subject_type, subject_id, dict(details or {}), now.correlation_id),
    )


class AuditEntry(BaseModel):
    """One change."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    at: datetime
    actor: str
    action: str
    subject_type: str
    subject_id: str
    details: dict[str, Any]
    correlation_id: str | None


class AuditFilters(BaseModel):
    """What the record is narrowed by."""

    subject_type: Annotated[str | None, Query(max_length=100)] = None
    subject_id: Annotated[str | None, Query(max_length=200)] = None
    actor: Annotated[str | None, Query(max_length=200)] = None
    action: Annotated[str | None, Query(max_length=100)] = None


def audit_router() -> APIRouter:
    """Routes to read the record."""
    routes = router(prefix="/v1/audit", tags=["audit"])

    @routes.get(
        "",
        dependencies=[Depends(require(Role.SUPERVISOR))],
        responses=problems(CursorInvalid),
    )
    async def read_audit(
        session: Session,
        filters: Annotated[AuditFilters, Depends()],
        cursor: CursorText = None,
        limit: Limit = 50,
    ) -> Page[AuditEntry]:
        """List changes, the newest first."""
        narrowed = filters.model_dump()
        last = Cursor.decode(cursor, tuple[int], narrowed)
        found = await session.execute(
            _LIST, {**narrowed, "after": last[0] if last else None, "limit": limit + 1}
        )
        return page_of(
            found.all(),
            limit=limit,
            view=AuditEntry.model_validate,
            sort_values=lambda row: (row.id,),
            filters=narrowed,
        )

    return routes
