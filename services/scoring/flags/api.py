"""HTTP in: flags of managers, the analyst's agenda, proposals and decisions."""

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel, Field
from sqlalchemy import select, text
from starlette.responses import Response

from libs.shared import audit
from libs.shared.auth import Principal, Role, require
from libs.shared.database import bare
from libs.shared.errors import NotFound
from libs.shared.http import (
    CalendarDay,
    Code,
    Cursor,
    CursorInvalid,
    CursorText,
    Db,
    Int32,
    Limit,
    Now,
    Page,
    Request,
    Session,
    Text2000,
    page_of,
    problems,
    router,
)
from libs.shared.policies import current
from services.scoring.flags.deciding import (
    FlagsNotOpen,
    OverrideIncomplete,
    OverrideTooLong,
    Verdict,
    decide,
    override,
)
from services.scoring.flags.gathering import (
    WEEK,
    Gathered,
    ReasonUnknown,
    SegmentIsThat,
    SegmentUnknown,
    disputed,
    gathered,
    raise_flag,
)
from services.scoring.flags.models import SegmentDecision, SegmentFlag
from services.scoring.flags.policy import FlagPolicy
from services.scoring.flags.proposals import Axis, Shift, best_shifts, shifted
from services.scoring.models import Score
from services.scoring.preview import preview
from services.scoring.rule_review import RuleReviewPolicy, review_due_on
from services.scoring.rules import FixedCuts, Methods, Rules, RuleSet
from services.scoring.rules_in_force import RuleSetNotFound, find, prepared, rules_in_force

routes = router(prefix="/v1", tags=["flags"])

Seller = Annotated[
    Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR, Role.ANALYST, Role.MARKETER))
]
Analyst = Annotated[Principal, Depends(require(Role.ANALYST, Role.SUPERVISOR))]


class ClientWithoutSegment(NotFound):
    """This client has no segment: nothing was bought, or everything returned."""

    code = "client-without-segment"
    ru = "У клиента нет сегмента: покупок не было или всё возвращено."


class RaiseFlag(Request):
    """This client's segment is wrong, and why.

    Attributes:
        reason: One of the policy `flags`.
        should_be: The segment that would be right, if the manager knows.
    """

    reason: Code
    should_be: Code | None = None
    note: Text2000 | None = None


class Decide(Request):
    """What is done about some flags.

    Attributes:
        rule_version: The version that mends them, where the rules are changed.
        override_segment, override_until: For `overridden`: up to and without this day.
    """

    flag_ids: Annotated[list[UUID], Field(min_length=1, max_length=1000)]
    verdict: Verdict
    note: Text2000
    rule_version: Int32 | None = None
    override_segment: Code | None = None
    override_until: CalendarDay | None = None


class TakeBackOverride(Request):
    """The client goes back into the segment that the rules give."""


class FlagView(BaseModel):
    """A flag with the figures that the segment was given for."""

    flag_id: UUID
    client_id: UUID
    raised_by: UUID | None
    raised_at: datetime
    reason: str
    note: str
    segment: str
    should_be: str | None
    rule_version: int
    recency_days: int
    frequency: int
    monetary_minor: int
    decision_id: UUID | None


class DecisionView(BaseModel):
    """A decision and what it did."""

    decision_id: UUID
    verdict: Verdict
    note: str
    rule_version: int | None
    override_segment: str | None
    override_until: date | None
    decided_at: datetime
    decided_by: str


class Moved(BaseModel):
    """Clients whom a proposal would move, flagged or not."""

    old_segment: str | None
    new_segment: str | None
    clients: int
    monetary_minor: int


class Proposal(BaseModel):
    """One bound elsewhere.

    Attributes:
        bound: Which of the axis' four, from 0.
        settles: How many open flags it would settle; `spoils`: flagged clients who would come into
            a segment that nobody asked for.
        moves: Everybody who would move.
        rule_set: Ready to be drafted with POST /v1/rule-sets.
    """

    axis: Axis
    bound: int
    old: float
    new: float
    settles: int
    spoils: int
    moves: list[Moved]
    rule_set: RuleSet


class Expiring(BaseModel):
    """An override that comes to its end."""

    client_id: UUID
    segment: str
    until: date


class Agenda(BaseModel):
    """What the weekly meeting about segments is about.

    Attributes:
        review_due_on: When the rules are to be looked at again in any case.
        gathered: Open flags that say the same, the most first.
        decided: In the week before.
        expiring: Overrides that end in the week to come.
    """

    rule_version: int
    review_due_on: date
    gathered: list[Gathered]
    decided: list[DecisionView]
    expiring: list[Expiring]


@routes.post(
    "/clients/{client_id}/segment-flags",
    status_code=201,
    responses=problems(ClientWithoutSegment, ReasonUnknown, SegmentUnknown, SegmentIsThat),
    summary="Call a client's segment wrong",
)
async def flag_segment(
    client_id: UUID,
    given: RaiseFlag,
    session: Session,
    caller: Seller,
    now: Now,
    response: Response,
) -> FlagView:
    rules, policy = await prepared(session), (await current(session, FlagPolicy)).body
    score = await session.get(Score, client_id)
    if score is None or score.segment is None:
        raise ClientWithoutSegment(client_id=str(client_id))
    flag = await raise_flag(
        session,
        score,
        rules,
        policy,
        by=caller.manager_id,
        reason=given.reason,
        should_be=given.should_be,
        note=given.note or "",
        now=now,
    )
    response.headers["Location"] = f"/v1/segment-flags?client_id={client_id}"
    return _flag_view(flag)


@routes.get("/segment-flags", responses=problems(CursorInvalid), summary="Flags, the newest first")
async def list_flags(
    session: Session,
    _caller: Seller,
    client_id: UUID | None = None,
    segment: Code | None = None,
    is_open: bool | None = None,
    cursor: CursorText = None,
    limit: Limit = 50,
) -> Page[FlagView]:
    filters = {"client_id": client_id, "segment": segment, "is_open": is_open}
    query = select(SegmentFlag)
    if client_id is not None:
        query = query.where(SegmentFlag.client_id == client_id)
    if segment is not None:
        query = query.where(SegmentFlag.segment == segment)
    if is_open is not None:
        undecided = SegmentFlag.decision_id.is_(None)
        query = query.where(undecided if is_open else ~undecided)
    if after := Cursor.decode(cursor, tuple[UUID], filters):
        query = query.where(SegmentFlag.flag_id < after[0])
    rows = (
        await session.scalars(query.order_by(SegmentFlag.flag_id.desc()).limit(limit + 1))
    ).all()
    return page_of(
        rows, limit=limit, view=_flag_view, sort_values=lambda row: [row.flag_id], filters=filters
    )


@routes.get("/segment-flags/agenda", summary="What the weekly meeting about segments is about")
async def show_agenda(session: Session, _caller: Analyst, now: Now) -> Agenda:
    rules = await prepared(session)
    decided = await session.scalars(
        select(SegmentDecision)
        .where(SegmentDecision.decided_at > now - WEEK)
        .order_by(SegmentDecision.decided_at.desc())
    )
    today = rules.day_of(now)
    expiring = await session.execute(_EXPIRING, {"today": today, "week": today + WEEK})
    return Agenda(
        rule_version=rules.version,
        review_due_on=await review_due_on(
            session, rules, (await current(session, RuleReviewPolicy)).body
        ),
        gathered=await gathered(session),
        decided=[DecisionView.model_validate(row, from_attributes=True) for row in decided],
        expiring=[Expiring.model_validate(row, from_attributes=True) for row in expiring],
    )


@routes.get(
    "/segment-flags/proposals",
    summary="Shifts of one bound that would settle most flags, and whom else they would move",
)
async def show_proposals(
    session: Session, database: Db, _caller: Analyst, now: Now
) -> list[Proposal]:
    rules, policy = await prepared(session), (await current(session, FlagPolicy)).body
    shifts = best_shifts(await disputed(session, rules), rules, most=policy.proposals)
    found = []
    for shift in shifts:
        rule_set = _rule_set_with(rules, shift)
        async with database.transaction() as tx:  # of one state of the base, as any preview
            moves = (await preview(tx, rule_set, now=now)).moves
        found.append(
            Proposal(
                axis=shift.axis,
                bound=shift.bound,
                old=shift.old,
                new=shift.new,
                settles=shift.settles,
                spoils=shift.spoils,
                moves=[
                    Moved.model_validate(move, from_attributes=True)
                    for move in moves
                    if move.old_segment != move.new_segment
                ],
                rule_set=rule_set,
            )
        )
    return found


@routes.post(
    "/segment-decisions",
    status_code=201,
    responses=problems(
        FlagsNotOpen, OverrideIncomplete, OverrideTooLong, SegmentUnknown, RuleSetNotFound
    ),
    summary="Settle flags: rules changed, clients overridden for a time, or rejected",
)
async def decide_flags(given: Decide, session: Session, caller: Analyst, now: Now) -> DecisionView:
    await prepared(session)
    if given.rule_version is not None:
        await find(session, given.rule_version)
    policy = (await current(session, FlagPolicy)).body
    decision_id = await decide(
        await bare(session),
        given.flag_ids,
        policy,
        verdict=given.verdict,
        note=given.note,
        by=caller.subject,
        now=now,
        rule_version=given.rule_version,
        segment=given.override_segment,
        until=given.override_until,
    )
    await audit.record(
        session,
        action="segment_flags.decided",
        subject_type="segment_decision",
        subject_id=str(decision_id),
        details={"verdict": given.verdict, "flags": len(given.flag_ids)},
        at=now,
    )
    row = await session.get(SegmentDecision, decision_id)
    return DecisionView.model_validate(row, from_attributes=True)


@routes.post(
    "/clients/{client_id}/segment-override/take-back",
    status_code=204,
    responses=problems(ClientWithoutSegment),
    summary="End an override before its time; twice is once",
)
async def take_back_override(
    client_id: UUID, _given: TakeBackOverride, session: Session, _caller: Analyst, now: Now
) -> None:
    await prepared(session)
    score = await session.get(Score, client_id)
    if score is None or score.segment is None:
        raise ClientWithoutSegment(client_id=str(client_id))
    tx = await bare(session)
    await override(tx, [client_id], None, None, await rules_in_force(tx), now)
    await audit.record(
        session,
        action="segment_override.taken_back",
        subject_type="client",
        subject_id=str(client_id),
        at=now,
    )


_EXPIRING = text("""
    SELECT client_id, override_segment AS segment, override_until AS until FROM scores
    WHERE override_until > :today AND override_until <= :week ORDER BY override_until, client_id
    LIMIT 1000
""")


def _rule_set_with(rules: Rules, shift: Shift) -> RuleSet:
    """The rule set in force with all its bounds written down, one of them elsewhere."""
    cuts = shifted(rules.cuts, shift.axis, shift.bound, shift.new)
    assert cuts is not None  # noqa: S101  # proposals ascend
    fixed = FixedCuts.model_validate(
        {
            "recency_days": cuts.recency_days,
            "frequency": cuts.frequency,
            "monetary_minor": cuts.monetary_minor,
        }
    )
    return rules.rule_set.model_copy(update={"method": Methods(), "fixed_cuts": fixed})


def _flag_view(flag: SegmentFlag) -> FlagView:
    return FlagView.model_validate(flag, from_attributes=True)
