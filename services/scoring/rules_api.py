"""HTTP in: rule sets and full rescorings."""

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
    Request,
    Session,
    page_of,
    problems,
    router,
)
from libs.shared.ids import new_id
from services.scoring.activation import (
    BaseIsEmpty,
    PreviewNotFound,
    RuleSetNotDraft,
    activate,
    stored_cuts,
)
from services.scoring.completeness import DataIncomplete, demand_complete, measures
from services.scoring.models import Rescoring, RuleChange, RulePreview, RuleSetVersion
from services.scoring.presets import PRESETS
from services.scoring.preview import Moves, preview
from services.scoring.rules import CurrencyWithoutRate, Rules, RuleSet
from services.scoring.rules_in_force import RuleSetNotFound, draft, find, prepared

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


class PresetNotFound(NotFound):
    """There is no preset of this name."""

    code = "preset-not-found"
    ru = "Готового набора правил с таким именем нет."


class PresetView(BaseModel):
    """A ready-made rule set to begin from."""

    name: str
    rule_set: RuleSet


class MovesView(BaseModel):
    """Clients who would go from one segment to another (or stay, where both are the same).

    Attributes:
        monetary_minor: Kept in the draft's period, minor units of its reporting currency.
        examples: The most valuable of those who would move.
    """

    old_segment: str | None
    new_segment: str | None
    clients: int
    monetary_minor: int
    examples: list[UUID]

    @classmethod
    def of(cls, moves: Moves) -> "MovesView":
        return cls(
            old_segment=moves.old_segment,
            new_segment=moves.new_segment,
            clients=moves.clients,
            monetary_minor=moves.monetary_minor,
            examples=[UUID(bytes=example.bytes) for example in moves.examples],
        )


class PreviewView(BaseModel):
    """What activating a draft would have done at `made_at`.

    Attributes:
        cuts: What activation `as_previewed` will cut at.
        moving: Clients who would get another segment.
        matrix: Every pair of old and new segment that has clients, the largest first.
    """

    preview_id: UUID
    version: int
    made_at: datetime
    made_by: str
    currency: str
    cuts: dict[str, list[float]]
    clients: int
    moving: int
    matrix: list[MovesView]


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
    return _rule_set_view(await _version(session, version))


@routes.post(
    "/rule-sets/{version}/previews",
    response_model=PreviewView,
    status_code=201,
    responses=problems(RuleSetNotFound, BaseIsEmpty, CurrencyWithoutRate),
    summary="Who would move from where to where, were this version in force now",
)
async def preview_rule_set(
    version: int,
    session: Session,
    database: Db,
    user: Analyst,
    _rules: CurrentRules,
    now: Now,
    response: Response,
) -> PreviewView:
    rule_set = RuleSet.model_validate((await _version(session, version)).body)
    async with (
        database.pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        found = await preview(connection, rule_set, now=now)
    made = RulePreview(
        preview_id=new_id(),
        version=version,
        cuts=stored_cuts(found.cuts),
        moves=[MovesView.of(moves).model_dump(mode="json") for moves in found.moves],
        made_at=now,
        made_by=user.subject,
    )
    session.add(made)
    await session.flush()
    response.headers["Location"] = f"/v1/previews/{made.preview_id}"
    return _preview_view(made, rule_set.reporting_currency)


@routes.get(
    "/previews/{preview_id}",
    response_model=PreviewView,
    responses=problems(PreviewNotFound),
    summary="A preview that was made before",
)
async def show_preview(preview_id: UUID, session: Session, _user: Reader) -> PreviewView:
    made = await session.get(RulePreview, preview_id)
    if made is None:
        raise PreviewNotFound(preview_id=str(preview_id))
    rule_set = RuleSet.model_validate((await find(session, made.version)).body)
    return _preview_view(made, rule_set.reporting_currency)


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
    await _version(session, version)
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


def _preview_view(made: RulePreview, currency: str) -> PreviewView:
    matrix = [MovesView.model_validate(moves) for moves in made.moves]
    return PreviewView(
        preview_id=made.preview_id,
        version=made.version,
        made_at=made.made_at,
        made_by=made.made_by,
        currency=currency,
        cuts=made.cuts,
        clients=sum(moves.clients for moves in matrix),
        moving=sum(m.clients for m in matrix if m.old_segment != m.new_segment),
        matrix=matrix,
    )


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
