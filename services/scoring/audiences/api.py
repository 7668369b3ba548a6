"""HTTP in: audiences, their members, and muting them for a season."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import asyncpg
from fastapi import Depends
from pydantic import BaseModel
from starlette.responses import Response

from libs.shared.auth import Principal, Role, require
from libs.shared.database import Connection
from libs.shared.errors import Conflict, NotFound
from libs.shared.http import Cursor, CursorText, Db, Limit, Now, Page, page_of, problems, router
from services.scoring.audiences.conditions import READY, AudienceRule, Mute

routes = router(prefix="/v1", tags=["audiences"])

READERS = (Role.MANAGER, Role.SUPERVISOR, Role.ANALYST, Role.MARKETER, Role.INTEGRATION)
Reader = Annotated[Principal, Depends(require(*READERS))]
Marketer = Annotated[Principal, Depends(require(Role.MARKETER, Role.ANALYST, Role.SUPERVISOR))]


class AudienceNotFound(NotFound):
    """There is no audience with this code."""

    code = "audience-not-found"
    ru = "Аудитории с таким кодом нет."


class AudienceExists(Conflict):
    """There is an audience with this code already."""

    code = "audience-exists"
    ru = "Аудитория с таким кодом уже есть."


class AudienceView(BaseModel):
    """An audience and how many belong to it.

    Attributes:
        is_counted: Everybody has been judged by the conditions of this version.
    """

    code: str
    version: int
    rule: AudienceRule
    is_on: bool
    is_counted: bool
    members: int
    changed_at: datetime
    changed_by: str


class MemberView(BaseModel):
    """A member; since when."""

    client_id: UUID
    entered_at: datetime


class MuteAudience(BaseModel):
    """Leave the audience alone on these days; null: not any more."""

    mute: Mute | None


_SHOWN = """
    SELECT a.*, (SELECT count(*) FROM audience_members AS m
        WHERE m.audience_id = a.audience_id AND m.is_in) AS members
    FROM audiences AS a
"""
# A version more, and everybody is judged from the beginning.
_CHANGE = """
    UPDATE audiences SET body = $2, is_on = $3, version = version + 1, due_at = $4,
        after_client_id = NULL, counted_at = NULL, changed_at = $4, changed_by = $5
    WHERE code = $1
"""


@routes.get("/audiences/ready", summary="Ready-made audiences to begin from")
async def list_ready(_user: Reader) -> list[AudienceRule]:
    return list(READY)


@routes.get("/audiences", summary="All audiences with the number of their members")
async def list_audiences(database: Db, _user: Reader) -> list[AudienceView]:
    rows = await database.pool.fetch(f"{_SHOWN} ORDER BY a.code")
    return [_view(row) for row in rows]


@routes.post(
    "/audiences",
    response_model=AudienceView,
    status_code=201,
    responses=problems(AudienceExists),
    summary="Begin an audience; everybody is judged beside the stream",
)
async def begin_audience(
    rule: AudienceRule, database: Db, user: Marketer, now: Now, response: Response
) -> AudienceView:
    async with database.transaction() as tx:
        made = await tx.fetchval(
            "INSERT INTO audiences (code, body, due_at, changed_at, changed_by)"
            " VALUES ($1, $2, $3, $3, $4) ON CONFLICT DO NOTHING RETURNING audience_id",
            rule.code,
            rule.model_dump(mode="json"),
            now,
            user.subject,
        )
        if made is None:
            raise AudienceExists(audience=rule.code)
        response.headers["Location"] = f"/v1/audiences/{rule.code}"
        return _view(await _find(tx, rule.code))


@routes.get(
    "/audiences/{code}",
    response_model=AudienceView,
    responses=problems(AudienceNotFound),
    summary="One audience",
)
async def show_audience(code: str, database: Db, _user: Reader) -> AudienceView:
    async with database.pool.acquire() as connection:
        return _view(await _find(connection, code))


@routes.put(
    "/audiences/{code}/mute",
    response_model=AudienceView,
    responses=problems(AudienceNotFound),
    summary="Leave an audience alone for a season",
)
async def mute_audience(
    code: str, wish: MuteAudience, database: Db, user: Marketer, now: Now
) -> AudienceView:
    async with database.transaction() as tx:
        rule = AudienceRule.model_validate((await _find(tx, code))["body"])
        muted = rule.model_copy(update={"mute": wish.mute})
        await tx.execute(_CHANGE, code, muted.model_dump(mode="json"), True, now, user.subject)
        return _view(await _find(tx, code))


@routes.delete(
    "/audiences/{code}",
    response_model=AudienceView,
    responses=problems(AudienceNotFound),
    summary="End an audience: everybody leaves it",
)
async def end_audience(code: str, database: Db, user: Marketer, now: Now) -> AudienceView:
    async with database.transaction() as tx:
        body = (await _find(tx, code))["body"]
        await tx.execute(_CHANGE, code, body, False, now, user.subject)
        return _view(await _find(tx, code))


@routes.get(
    "/audiences/{code}/members",
    response_model=Page[MemberView],
    responses=problems(AudienceNotFound),
    summary="Who belongs to an audience at this moment, by id",
)
async def list_members(
    code: str, database: Db, _user: Reader, cursor: CursorText = None, limit: Limit = 50
) -> Page[MemberView]:
    after = Cursor.decode(cursor, tuple[UUID], {"code": code})
    async with database.pool.acquire() as connection:
        audience = await _find(connection, code)
        rows = await connection.fetch(
            "SELECT client_id, changed_at FROM audience_members WHERE audience_id = $1 AND is_in"
            " AND client_id > $2 ORDER BY client_id LIMIT $3",
            audience["audience_id"],
            after[0] if after else UUID(int=0),
            limit + 1,
        )
    return page_of(
        rows,
        limit=limit,
        view=lambda row: MemberView(
            client_id=UUID(bytes=row["client_id"].bytes), entered_at=row["changed_at"]
        ),
        sort_values=lambda row: [row["client_id"]],
        filters={"code": code},
    )


@routes.get(
    "/clients/{client_id}/audiences", summary="The audiences that a client belongs to, by code"
)
async def list_audiences_of(client_id: UUID, database: Db, _user: Reader) -> list[str]:
    rows = await database.pool.fetch(
        "SELECT code FROM audience_members JOIN audiences USING (audience_id)"
        " WHERE client_id = $1 AND is_in ORDER BY code",
        client_id,
    )
    return [row["code"] for row in rows]


async def _find(connection: Connection, code: str) -> asyncpg.Record:
    row = await connection.fetchrow(f"{_SHOWN} WHERE a.code = $1", code)
    if row is None:
        raise AudienceNotFound(audience=code[:100])
    return row


def _view(row: asyncpg.Record) -> AudienceView:
    return AudienceView(
        code=row["code"],
        version=row["version"],
        rule=AudienceRule.model_validate(row["body"]),
        is_on=row["is_on"],
        is_counted=row["counted_at"] is not None,
        members=row["members"],
        changed_at=row["changed_at"],
        changed_by=row["changed_by"],
    )
