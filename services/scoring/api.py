"""HTTP in: scores, segments, the queue, rule sets and full rescorings."""

from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query
from pydantic import BaseModel
from sqlalchemy import select, tuple_
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
    set_etag,
)
from libs.shared.ids import new_id
from services.scoring.models import Rescoring, RuleSetVersion, Score, SegmentMove
from services.scoring.priority_queue import QueueEntry, whom_to_call
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
from services.scoring.segment_table import SegmentTable, segment_table

routes = router(prefix="/v1", tags=["scoring"])

READERS = (Role.MANAGER, Role.SUPERVISOR, Role.ANALYST, Role.MARKETER, Role.INTEGRATION)
Reader = Annotated[Principal, Depends(require(*READERS))]
Analyst = Annotated[Principal, Depends(require(Role.ANALYST, Role.SUPERVISOR))]


class ClientNotScored(NotFound):
    """This client has no purchase yet, and so no score."""

    code = "client-not-scored"
    ru = "У клиента ещё нет покупок, поэтому нет и оценки."


class RescoringNotFound(NotFound):
    """There is no rescoring with this id."""

    code = "rescoring-not-found"
    ru = "Такого пересчёта нет."


class ScoreView(BaseModel):
    """A client's RFM widget: figures, ratings and segment.

    Attributes:
        recency_days: Days since the last purchase, today.
        monetary_minor: Kept in the period, minor units of the reporting currency.
        changes_at: When the scores may change by age alone.
    """

    client_id: UUID
    seq: int
    segment: str | None
    segment_label: str | None
    recency_score: int | None
    frequency_score: int | None
    monetary_score: int | None
    recency_days: int | None
    last_purchase_day: date | None
    frequency: int | None
    monetary_minor: int | None
    currency: str
    rule_version: int
    as_of: date
    changes_at: datetime | None


class SegmentMoveView(BaseModel):
    """One line of a client's segment history."""

    seq: int
    old_segment: str | None
    new_segment: str | None
    recency_score: int | None
    frequency_score: int | None
    monetary_score: int | None
    rule_version: int
    as_of: date
    changed_at: datetime
    reason: str


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


async def current_rules(session: Session, now: Now) -> Rules:
    """The rules in force, as a dependency."""
    return await prepared(session, now)


CurrentRules = Annotated[Rules, Depends(current_rules)]


@routes.get(
    "/clients/{client_id}/score",
    response_model=ScoreView,
    responses=problems(ClientNotScored),
    summary="A client's figures, ratings and segment",
)
async def show_score(
    client_id: UUID,
    session: Session,
    _user: Reader,
    rules: CurrentRules,
    now: Now,
    response: Response,
) -> ScoreView:
    score = await session.get(Score, client_id)
    if score is None:
        raise ClientNotScored(client_id=str(client_id))
    set_etag(response, score.seq)
    return _view(score, rules, now)


@routes.get(
    "/clients/{client_id}/segments",
    response_model=Page[SegmentMoveView],
    summary="A client's segment history, newest first",
)
async def show_segment_history(
    client_id: UUID, session: Session, _user: Reader, cursor: CursorText = None, limit: Limit = 50
) -> Page[SegmentMoveView]:
    after = Cursor.decode(cursor, tuple[int], {"client_id": client_id})
    query = select(SegmentMove).where(SegmentMove.client_id == client_id)
    if after:
        query = query.where(SegmentMove.seq < after[0])
    rows = (await session.scalars(query.order_by(SegmentMove.seq.desc()).limit(limit + 1))).all()
    return page_of(
        rows,
        limit=limit,
        view=lambda row: SegmentMoveView.model_validate(row, from_attributes=True),
        sort_values=lambda row: [row.seq],
        filters={"client_id": client_id},
    )


@routes.get("/segments", response_model=SegmentTable, summary="The base by segment")
async def show_segments(
    session: Session, _user: Reader, rules: CurrentRules, now: Now
) -> SegmentTable:
    return await segment_table(session, rules, now=now)


@routes.get("/scores", response_model=Page[ScoreView], summary="All scored clients, by id")
async def list_scores(
    session: Session,
    _user: Reader,
    rules: CurrentRules,
    now: Now,
    segment: Annotated[str | None, Query(max_length=63)] = None,
    cursor: CursorText = None,
    limit: Limit = 50,
) -> Page[ScoreView]:
    filters = {"segment": segment}
    after = Cursor.decode(cursor, tuple[UUID], filters)
    query = select(Score)
    if segment is not None:
        query = query.where(Score.segment == segment)
    if after:
        query = query.where(Score.client_id > after[0])
    rows = (await session.scalars(query.order_by(Score.client_id).limit(limit + 1))).all()
    return page_of(
        rows,
        limit=limit,
        view=lambda row: _view(row, rules, now),
        sort_values=lambda row: [row.client_id],
        filters=filters,
    )


@routes.get("/queue", response_model=list[QueueEntry], summary="Whom to call first, and why")
async def show_queue(
    session: Session,
    _user: Reader,
    rules: CurrentRules,
    now: Now,
    segment: Annotated[str | None, Query(max_length=63)] = None,
    limit: Limit = 50,
) -> list[QueueEntry]:
    return await whom_to_call(session, rules, now=now, limit=limit, segment=segment)


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
        query = query.where(tuple_(RuleSetVersion.version) < tuple_(after[0]))
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


def _view(score: Score, rules: Rules, now: datetime) -> ScoreView:
    rule = rules.rule_set.treatment().get(score.segment or "")
    return ScoreView(
        client_id=score.client_id,
        seq=score.seq,
        segment=score.segment,
        segment_label=rule.label if rule else score.segment,
        recency_score=score.recency_score,
        frequency_score=score.frequency_score,
        monetary_score=score.monetary_score,
        recency_days=(rules.day_of(now) - score.last_day).days if score.last_day else None,
        last_purchase_day=score.last_day,
        frequency=score.frequency,
        monetary_minor=score.monetary_minor,
        currency=rules.rule_set.reporting_currency,
        rule_version=score.rule_version,
        as_of=score.as_of,
        changes_at=score.due_at,
    )
