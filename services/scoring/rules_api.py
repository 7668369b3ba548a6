"""HTTP in: rule sets, which one is in force, and how far a new one has reached everybody."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared.auth import Principal, Role, require
from libs.shared.errors import NotFound
from libs.shared.http import (
    Cursor,
    CursorText,
    Db,
    Limit,
    Now,
    Page,
    Session,
    page_of,
    problems,
    router,
)
from services.scoring.activation import (
    BaseIsEmpty,
    PreviewNotFound,
    RuleSetNotDraft,
    activate,
)
from services.scoring.completeness import DataIncomplete, demand_complete, measures
from services.scoring.models import RuleChange, RuleSetVersion
from services.scoring.presets import PRESETS
from services.scoring.rules import CurrencyWithoutRate, Rules, RuleSet
from services.scoring.rules_in_force import RuleSetNotFound, draft, find, prepared

routes = router(prefix="/v1", tags=["scoring"])

READERS = (Role.MANAGER, Role.SUPERVISOR, Role.ANALYST, Role.MARKETER, Role.INTEGRATION)
Reader = Annotated[Principal, Depends(require(*READERS))]
Analyst = Annotated[Principal, Depends(require(Role.ANALYST, Role.SUPERVISOR))]


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


class PresetNotFound(NotFound):
    """There is no preset of this name."""

    code = "preset-not-found"
    ru = "Готового набора правил с таким именем нет."


class PresetView(BaseModel):
    """A ready-made rule set to begin from."""

    name: str
    rule_set: RuleSet


class MeasureView(BaseModel):
    """One thing that may be missing in the data: how much is, and how much may be."""

    name: str
    label: str
    found: float
    allowed: float
    is_gap: bool


class RuleChangeView(BaseModel):
    """How far the work is that activating a version left.

    Attributes:
        state: waiting, running, boundaries (everybody is rated; when they will next be looked at is
            still being written), finished, superseded.
        rated_at: When everybody had been rated.
    """

    version: int
    state: str
    counts_anew: bool
    activated_at: datetime
    checked: int
    moved: int
    rated_at: datetime | None
    finished_at: datetime | None


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


@routes.get("/rule-set-presets", summary="Ready-made rule sets to begin from")
async def list_presets(_user: Reader) -> list[PresetView]:
    return [PresetView(name=name, rule_set=rule_set) for name, rule_set in PRESETS.items()]


@routes.post(
    "/rule-set-presets/{name}/draft",
    response_model=RuleSetView,
    status_code=201,
    responses=problems(PresetNotFound),
    summary="Draft a ready-made rule set as it is",
)
async def draft_preset(
    name: str, session: Session, user: Analyst, now: Now, response: Response
) -> RuleSetView:
    if name not in PRESETS:
        raise PresetNotFound(known=sorted(PRESETS))
    return await draft_rule_set(PRESETS[name], session, user, now, response)


@routes.get(
    "/rule-sets/{version}",
    response_model=RuleSetView,
    responses=problems(RuleSetNotFound),
    summary="One version of the rules",
)
async def show_rule_set(
    version: int, session: Session, _user: Reader, _rules: CurrentRules
) -> RuleSetView:
    return _rule_set_view(await version_of(session, version))


@routes.post(
    "/rule-sets/{version}/activate",
    response_model=RuleSetView,
    responses=problems(
        RuleSetNotFound,
        RuleSetNotDraft,
        PreviewNotFound,
        BaseIsEmpty,
        CurrencyWithoutRate,
        DataIncomplete,
    ),
    summary="Put a draft in force; everybody is scored again beside the stream",
)
async def activate_rule_set(
    version: int,
    session: Session,
    database: Db,
    user: Analyst,
    _rules: CurrentRules,
    now: Now,
    as_previewed: Annotated[
        UUID | None, Query(description="Take the quintiles that this preview found.")
    ] = None,
    despite_gaps: Annotated[
        bool, Query(description="The data are known to be incomplete, see /v1/data-completeness.")
    ] = False,
) -> RuleSetView:
    await version_of(session, version)
    if not despite_gaps:
        async with database.pool.acquire() as connection:
            await demand_complete(connection)
    return _rule_set_view(
        await activate(session, version, by=user.subject, now=now, as_previewed=as_previewed)
    )


@routes.get("/data-completeness", summary="What is missing in the data, and how much may be")
async def show_completeness(database: Db, _user: Reader) -> list[MeasureView]:
    async with database.pool.acquire() as connection:
        found = await measures(connection)
    return [MeasureView.model_validate(measure, from_attributes=True) for measure in found]


@routes.get(
    "/rule-sets/{version}/change",
    response_model=RuleChangeView,
    responses=problems(RuleSetNotFound),
    summary="How far everybody is rated under an activated version",
)
async def show_rule_change(version: int, session: Session, _user: Reader) -> RuleChangeView:
    change = await session.get(RuleChange, version) if 0 < version < 2**31 else None
    if change is None:
        raise RuleSetNotFound(version=version)
    return RuleChangeView.model_validate(change, from_attributes=True)


async def version_of(session: AsyncSession, version: int) -> RuleSetVersion:
    """A version that a path names.

    Raises:
        RuleSetNotFound: No such version.
    """
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
