"""HTTP in: rule sets and full rescorings."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared.auth import Principal, Role, require
from libs.shared.errors import NotFound
from libs.shared.http import (
    Cursor,
    CursorText,
    Limit,
    Now,
    Page,
    Request,
    Session,
    page_of,
    problems,
    router,
)
from libs.shared.ids import new_id
from services.scoring.models import Rescoring, RuleSetVersion
from services.scoring.rules import CurrencyWithoutRate, Rules, RuleSet
from services.scoring.rules_in_force import (
    BaseIsEmpty,
    RuleSetNotDraft,
    RuleSetNotFound,
    activate,
    draft,
    find,
    prepared,
)

routes = router(prefix="/v1", tags=["scoring"])

READERS = (Role.MANAGER, Role.SUPERVISOR, Role.ANALYST, Role.MARKETER, Role.INTEGRATION)
Reader = Annotated[Principal, Depends(require(*READERS))]
Analyst = Annotated[Principal, Depends(require(Role.ANALYST, Role.SUPERVISOR))]


class RescoringNotFound(NotFound):
    """There is no rescoring with this id."""

    code = "rescoring-not-found"
    ru = "Такого пересчёта нет."


class RuleSetView(BaseModel):
    """A version of the RFM rules with its cuts (null while it is a draft)."""

    version: int
    status: str
    rule_set: RuleSet
    cuts: dict[str, list[float]] | None
    created_at: datetime
    created_by: str
    activated_at: datetime | None
    activated_by: str | None


class RescoringView(BaseModel):
    """A full rescoring; `mismatches` counts clients whose stored score was wrong and is mended."""

    rescoring_id: UUID
    state: str
    checked: int
    mismatches: int
    history_mismatches: int
    requested_at: datetime
    requested_by: str
    finished_at: datetime | None


class StartRescoring(Request):
    """Score everybody again from the bare purchases."""


async def current_rules(session: Session) -> Rules:
    """The rules in force, as a dependency."""
    return await prepared(session)


CurrentRules = Annotated[Rules, Depends(current_rules)]


@routes.get("/rule-sets", response_model=Page[RuleSetView], summary="Rule sets, newest first")
async def list_rule_sets(
    session: Session,
    _user: Reader,
    _rules: CurrentRules,
    cursor: CursorText = None,
    limit: Limit = 50,
) -> Page[RuleSetView]:
    after = Cursor.decode(cursor, tuple[int])
    query = select(RuleSetVersion)
    if after:
        query = query.where(RuleSetVersion.version < after[0])
    query = query.order_by(RuleSetVersion.version.desc()).limit(limit + 1)
    rows = (await session.scalars(query)).all()
    return page_of(rows, limit=limit, view=_rule_set_view, sort_values=lambda row: [row.version])


@routes.post(
    "/rule-sets", response_model=RuleSetView, status_code=201, summary="Draft another rule set"
)
async def draft_rule_set(
    rule_set: RuleSet, session: Session, user: Analyst, now: Now, response: Response
) -> RuleSetView:
    row = await draft(session, rule_set, by=user.subject, now=now)
    response.headers["Location"] = f"/v1/rule-sets/{row.version}"
    return _rule_set_view(row)


@routes.get(
    "/rule-sets/{version}",
    response_model=RuleSetView,
    responses=problems(RuleSetNotFound),
    summary="One version of the rules",
)
async def show_rule_set(
    version: int, session: Session, _user: Reader, _rules: CurrentRules
) -> RuleSetView:
    return _rule_set_view(await _version(session, version))


@routes.post(
    "/rule-sets/{version}/activate",
    response_model=RuleSetView,
    responses=problems(RuleSetNotFound, RuleSetNotDraft, BaseIsEmpty, CurrencyWithoutRate),
    summary="Put a draft in force; everybody is scored again beside the stream",
)
async def activate_rule_set(
    version: int, session: Session, user: Analyst, _rules: CurrentRules, now: Now
) -> RuleSetView:
    await _version(session, version)
    return _rule_set_view(await activate(session, version, by=user.subject, now=now))


@routes.post(
    "/rescorings",
    response_model=RescoringView,
    status_code=202,
    summary="Score everybody again from the bare purchases and count what differs",
)
async def start_rescoring(
    _wish: StartRescoring, session: Session, user: Analyst, now: Now, response: Response
) -> RescoringView:
    job = Rescoring(
        rescoring_id=new_id(),
        state="running",
        requested_at=now,
        requested_by=user.subject,
        due_at=now,
        checked=0,
        mismatches=0,
        history_mismatches=0,
    )
    session.add(job)
    await session.flush()
    response.headers["Location"] = f"/v1/rescorings/{job.rescoring_id}"
    return RescoringView.model_validate(job, from_attributes=True)


@routes.get(
    "/rescorings/{rescoring_id}",
    response_model=RescoringView,
    responses=problems(RescoringNotFound),
    summary="How far a rescoring is",
)
async def show_rescoring(rescoring_id: UUID, session: Session, _user: Reader) -> RescoringView:
    job = await session.get(Rescoring, rescoring_id)
    if job is None:
        raise RescoringNotFound(rescoring_id=str(rescoring_id))
    return RescoringView.model_validate(job, from_attributes=True)


async def _version(session: AsyncSession, version: int) -> RuleSetVersion:
    if not 0 < version < 2**31:
        raise RuleSetNotFound
    return await find(session, version)


def _rule_set_view(row: RuleSetVersion) -> RuleSetView:
    values: dict[str, Any] = {
        name: getattr(row, name)
        for name in (
            "version",
            "status",
            "cuts",
            "created_at",
            "created_by",
            "activated_at",
            "activated_by",
        )
    }
    return RuleSetView(rule_set=RuleSet.model_validate(row.body), **values)
