"""A small service, made as every service is made, to try the HTTP side on."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import httpx
from fastapi import Depends, FastAPI
from pydantic import BaseModel, Field
from sqlalchemy import text
from starlette.responses import JSONResponse, Response

from libs.shared import context, idempotency
from libs.shared.database import Database
from libs.shared.errors import Conflict, NotFound, PreconditionFailed
from libs.shared.http import (
    AmountMinor,
    Cursor,
    CursorText,
    Db,
    IdempotencyKeyRequired,
    IfMatch,
    Instant,
    Limit,
    Now,
    OwnIdempotency,
    Page,
    Principal,
    Request,
    Role,
    Session,
    Text200,
    create_app,
    page_of,
    problems,
    require,
    router,
    set_etag,
)
from libs.shared.ids import new_id
from libs.shared.policies import Policy
from libs.shared.settings import ServiceSettings
from tests.shared.issuer import AUDIENCE, Issuer

TABLES = """
CREATE TABLE notes (
    id uuid PRIMARY KEY, title text NOT NULL UNIQUE, amount bigint, at timestamptz, version int
)
"""


class ClaimPolicy(Policy, name="claims"):
    """How long a manager has to claim a lead."""

    claim_window_minutes: Annotated[int, Field(ge=1, le=1440)] = 15
    rounds: Annotated[int, Field(ge=1, le=100)] = 3


class NoteTaken(Conflict):
    """There is a note with this title."""

    code = "note-taken"
    ru = "Заметка с таким заголовком уже есть."


class NoteUnknown(NotFound):
    """There is no note with this id."""

    code = "note-unknown"
    ru = "Нет такой заметки."


class AddNote(Request):
    title: Text200
    amount_minor: AmountMinor = 0
    count: int = 0
    at: Instant | None = None
    tags: list[Text200] = Field(default=[], max_length=20)
    extra: Any = None


class ChangeNote(Request):
    title: Text200


class NoteView(BaseModel):
    id: UUID
    title: str
    version: int


Caller = Annotated[Principal, Depends(require(Role.MANAGER))]
notes = router(prefix="/v1/notes", tags=["notes"])
_INSERT = text("INSERT INTO notes VALUES (:id, :title, :amount, :at, 1)")
_INSERT_ONCE = f"""
WITH first AS ({idempotency.INSERT_ANSWERED})
INSERT INTO notes SELECT $8, $9, 0, NULL, 1 FROM first RETURNING true
"""


@notes.post("", status_code=201, responses=problems(NoteTaken))
async def add_note(
    body: AddNote, session: Session, now: Now, _caller: Caller, response: Response
) -> NoteView:
    """Write a note."""
    taken = await session.scalar(
        text("SELECT true FROM notes WHERE title = :title"), {"title": body.title}
    )
    if taken:
        raise NoteTaken(title_length=len(body.title))
    made = NoteView(id=new_id(), title=body.title, version=1)
    values = {"id": made.id, "title": made.title, "at": body.at or now}
    await session.execute(_INSERT, {**values, "amount": body.count})
    set_etag(response, 1)
    response.headers["Location"] = f"/v1/notes/{made.id}"
    return made


@notes.post("/careless", status_code=201)
async def add_note_carelessly(body: AddNote, session: Session, _caller: Caller) -> NoteView:
    """Write a note without looking whether there is one."""
    made = NoteView(id=new_id(), title=body.title, version=1)
    values = {"id": made.id, "title": made.title, "at": body.at}
    await session.execute(_INSERT, {**values, "amount": body.count})
    return made


@notes.post("/fast", status_code=201)
async def add_note_fast(
    body: AddNote, claim: OwnIdempotency, database: Db, caller: Caller
) -> Response:
    """Write a note and its idempotency key in one statement on a bare connection."""
    view = NoteView(id=new_id(), title=body.title, version=1)
    answer = Response(view.model_dump_json(), 201, media_type="application/json")
    claim = claim or idempotency.Claim(caller.subject, "POST", str(view.id), b"")
    async with database.transaction() as connection:
        written = await connection.fetchval(
            _INSERT_ONCE,
            *(claim.principal, claim.route, claim.key, claim.fingerprint),
            *(201, bytes(answer.body), idempotency.kept_headers(answer)),
            *(view.id, view.title),
        )
        if not written:
            return (await idempotency.stored_answer(connection, claim)).response()
    return answer


@notes.post("/careful", status_code=204, dependencies=[IdempotencyKeyRequired])
async def careful(_caller: Caller) -> None:
    """Do something that must not be done twice."""


@notes.post("/then-fail", status_code=201)
async def write_then_fail(body: AddNote, session: Session, _caller: Caller) -> NoteView:
    """Write a note and break."""
    values = {"id": new_id(), "title": body.title, "at": None, "amount": 0}
    await session.execute(_INSERT, values)
    raise RuntimeError(f"secret details about {body.title}")


@notes.get("")
async def list_notes(
    session: Session,
    _caller: Caller,
    starts: str | None = None,
    cursor: CursorText = None,
    limit: Limit = 50,
) -> Page[NoteView]:
    """List notes by title."""
    filters = {"starts": starts}
    last = Cursor.decode(cursor, tuple[str, UUID], filters)
    found = await session.execute(
        text(
            "SELECT id, title, version FROM notes WHERE title LIKE :starts || '%'"
            " AND (CAST(:title AS text) IS NULL OR (title, id) > (:title, :id))"
            " ORDER BY title, id LIMIT :limit"
        ),
        {
            "starts": starts or "",
            "title": last[0] if last else None,
            "id": last[1] if last else None,
            "limit": limit + 1,
        },
    )
    return page_of(
        found.all(),
        limit=limit,
        view=lambda row: NoteView(id=row.id, title=row.title, version=row.version),
        sort_values=lambda row: (row.title, row.id),
        filters=filters,
    )


@notes.get("/whoami")
async def who_am_i(caller: Caller, now: Now) -> dict[str, Any]:
    """Tell what the door has bound."""
    bound = context.current()
    return {
        "subject": caller.subject,
        "actor": bound.actor,
        "correlation_id": bound.correlation_id,
        "traceparent": bound.traceparent,
        "now": now,
    }


@notes.get("/count")
async def count_notes(session: Session, _caller: Caller) -> int:
    """Count the notes."""
    return await session.scalar(text("SELECT count(*) FROM notes")) or 0


@notes.get("/{note_id}", responses=problems(NoteUnknown))
async def read_note(
    note_id: UUID, session: Session, _caller: Caller, response: Response
) -> NoteView:
    """Show a note."""
    row = await _note(session, note_id)
    set_etag(response, row.version)
    return row


@notes.patch("/{note_id}", responses=problems(NoteUnknown))
async def change_note(
    note_id: UUID,
    body: ChangeNote,
    expected: IfMatch,
    session: Session,
    _caller: Caller,
    response: Response,
) -> NoteView:
    """Change a note that you have seen."""
    row = await _note(session, note_id)
    if expected not in (0, row.version):
        raise PreconditionFailed
    await session.execute(
        text("UPDATE notes SET title = :title, version = version + 1 WHERE id = :id"),
        {"title": body.title, "id": note_id},
    )
    set_etag(response, row.version + 1)
    return NoteView(id=note_id, title=body.title, version=row.version + 1)


@notes.get("/by/{title}/at/{at}")
async def read_by_title(title: str, at: datetime, _caller: Caller) -> JSONResponse:
    """Answer with what stands in the path."""
    return JSONResponse({"title": title, "at": at.isoformat()})


async def _note(session: Session, note_id: UUID) -> NoteView:
    found = await session.execute(
        text("SELECT id, title, version FROM notes WHERE id = :id FOR UPDATE"), {"id": note_id}
    )
    row = found.one_or_none()
    if row is None:
        raise NoteUnknown
    return NoteView(id=row.id, title=row.title, version=row.version)


@dataclass
class Demo:
    """The running demo service."""

    app: FastAPI
    http: httpx.AsyncClient
    issuer: Issuer
    database: Database

    def bearer(self, *roles: str, **changes: Any) -> dict[str, str]:
        return self.issuer.bearer(*roles, **changes)


@asynccontextmanager
async def running(
    url: str, issuer: Issuer, *, policies: Sequence[type[Policy]] = (ClaimPolicy,), **changes: Any
) -> AsyncIterator[Demo]:
    """Run the demo service on a database; admin's token is sent by default."""
    settings = ServiceSettings(
        database_url=url,
        jwks_url=issuer.jwks_url,
        jwt_issuer=issuer.name,
        jwt_audience=AUDIENCE,
        **{"database_pool": 8, **changes},
    )
    app = create_app(settings=settings, title="demo", routers=[notes], policies=policies)
    async with app.router.lifespan_context(app):
        database: Database = app.state.database
        async with database.pool.acquire() as connection:
            if not await connection.fetchval("SELECT to_regclass('notes')"):
                await connection.execute(TABLES)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://demo", headers=issuer.bearer("admin")
        ) as http:
            yield Demo(app, http, issuer, database)
