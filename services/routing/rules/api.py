"""HTTP in: distribution rules and teams."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel, Field
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared import audit
from libs.shared.auth import Principal, Role, require
from libs.shared.errors import Invalid, NotFound
from libs.shared.field_types import Code
from libs.shared.http import (
    Cursor,
    CursorText,
    Limit,
    Now,
    Page,
    Request,
    Session,
    Text200,
    Text2000,
    page_of,
    problems,
    router,
)
from services.routing.choosing.rule_set import EVERYBODY, RuleSet
from services.routing.handing_over import ManagerNotFound, find_manager
from services.routing.rules.versions import (
    RuleSetNotDraft,
    RuleSetNotFound,
    RuleSetVersion,
    Team,
    TeamMember,
    TeamUnknown,
    activate,
    active,
    draft,
    find,
    hints,
    members_of,
)

routes = router(prefix="/v1", tags=["rules"])

Anybody = Annotated[
    Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR, Role.ANALYST, Role.INTEGRATION))
]
Supervisor = Annotated[Principal, Depends(require(Role.SUPERVISOR))]


class TeamNotFound(NotFound):
    """There is no team with this code."""

    code = "team-not-found"
    ru = "Команды с таким кодом нет."


class TeamIsEverybody(Invalid):
    """The team `all` is everybody and needs no members."""

    code = "team-is-everybody"
    ru = "Команда all — это все менеджеры, её состав не задают."


class DraftRuleSet(Request):
    """Rules to keep as a draft."""

    rule_set: RuleSet
    note: Text2000 | None = None


class PutInForce(Request):
    """Put a draft in force now."""


class PutTeam(Request):
    """A team as it is to be: its name and all its members."""

    name: Text200
    members: Annotated[list[UUID], Field(max_length=2000)] = Field(default_factory=list)


class RuleSetView(BaseModel):
    """A version of the rules; `hints` tell of rules and teams that cannot work."""

    version: int
    status: Literal["draft", "active", "retired"]
    rule_set: RuleSet
    note: str | None
    hints: list[str]
    created_at: datetime
    created_by: str
    activated_at: datetime | None
    activated_by: str | None


class TeamView(BaseModel):
    """A team."""

    team: str
    name: str
    members: list[UUID]


@routes.get("/rule-sets", summary="Versions of the rules, the newest first")
async def list_rule_sets(
    session: Session, _user: Anybody, cursor: CursorText = None, limit: Limit = 50
) -> Page[RuleSetView]:
    after = Cursor.decode(cursor, tuple[int])
    query = select(RuleSetVersion)
    if after:
        query = query.where(RuleSetVersion.version < after[0])
    query = query.order_by(RuleSetVersion.version.desc()).limit(limit + 1)
    rows = (await session.scalars(query)).all()
    views = {row.version: await _view(session, row) for row in rows}
    return page_of(
        rows, limit=limit, view=lambda row: views[row.version], sort_values=lambda r: [r.version]
    )


@routes.post(
    "/rule-sets",
    response_model=RuleSetView,
    status_code=201,
    responses=problems(TeamUnknown),
    summary="Draft another version; its hints tell what would not work",
)
async def draft_rule_set(
    wish: DraftRuleSet, session: Session, user: Supervisor, now: Now, response: Response
) -> RuleSetView:
    row = await draft(session, wish.rule_set, note=wish.note, by=user.subject, now=now)
    response.headers["Location"] = f"/v1/rule-sets/{row.version}"
    return await _view(session, row)


@routes.get("/rule-sets/active", summary="The rules in force")
async def show_active(session: Session, _user: Anybody) -> RuleSetView:
    return await _view(session, await active(session))


@routes.get(
    "/rule-sets/{version}", responses=problems(RuleSetNotFound), summary="One version of the rules"
)
async def show_rule_set(version: int, session: Session, _user: Anybody) -> RuleSetView:
    return await _view(session, await find(session, version))


@routes.post(
    "/rule-sets/{version}/activate",
    response_model=RuleSetView,
    responses=problems(RuleSetNotFound, RuleSetNotDraft, TeamUnknown),
    summary="Put a draft in force",
)
async def activate_rule_set(
    version: int, _wish: PutInForce, session: Session, user: Supervisor, now: Now
) -> RuleSetView:
    await find(session, version)
    return await _view(session, await activate(session, version, by=user.subject, now=now))


@routes.get("/teams", summary="All teams")
async def list_teams(session: Session, _user: Anybody) -> list[TeamView]:
    teams = await session.scalars(select(Team).order_by(Team.team))
    return [await _team_view(session, team) for team in teams]


@routes.put(
    "/teams/{team}",
    response_model=TeamView,
    responses=problems(ManagerNotFound, TeamIsEverybody),
    summary="Make a team, or make it as it is to be",
)
async def put_team(
    team: Code, wish: PutTeam, session: Session, user: Supervisor, now: Now
) -> TeamView:
    if team == EVERYBODY:
        raise TeamIsEverybody
    # Locked before the team changes, for that takes the desk, which who has a manager may wait for.
    for manager_id in sorted(set(wish.members)):
        await find_manager(session, manager_id, lock=True)
    row = await session.get(Team, team, with_for_update=True)
    if row is None:
        row = Team(team=team, name=wish.name, created_at=now)
        session.add(row)
    row.name = wish.name
    await session.flush()
    await session.execute(delete(TeamMember).where(TeamMember.team == team))
    session.add_all([TeamMember(team=team, manager_id=m) for m in dict.fromkeys(wish.members)])
    await session.flush()
    await audit.record(
        session,
        action="team.changed",
        subject_type="team",
        subject_id=team,
        details={"members": [str(m) for m in wish.members]},
        at=now,
        actor=user.subject,
    )
    return await _team_view(session, row)


@routes.get("/teams/{team}", responses=problems(TeamNotFound), summary="One team")
async def show_team(team: str, session: Session, _user: Anybody) -> TeamView:
    row = await session.get(Team, team)
    if row is None:
        raise TeamNotFound(team=team)
    return await _team_view(session, row)


async def _team_view(session: AsyncSession, row: Team) -> TeamView:
    members = await session.scalars(
        select(TeamMember.manager_id)
        .where(TeamMember.team == row.team)
        .order_by(TeamMember.manager_id)
    )
    return TeamView(team=row.team, name=row.name, members=list(members))


async def _view(session: AsyncSession, row: RuleSetVersion) -> RuleSetView:
    rule_set = RuleSet.model_validate(row.body)
    members = await members_of(session, list(rule_set.teams()))
    return RuleSetView(
        version=row.version,
        status=row.status,
        rule_set=rule_set,
        note=row.note,
        hints=hints(rule_set, members),
        created_at=row.created_at,
        created_by=row.created_by,
        activated_at=row.activated_at,
        activated_by=row.activated_by,
    )
