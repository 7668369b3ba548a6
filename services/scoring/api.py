"""HTTP in: scores and segments."""

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy import select, text
from starlette.responses import Response

from libs.shared.errors import NotFound
from libs.shared.http import (
    Cursor,
    CursorText,
    Limit,
    Now,
    Page,
    Session,
    page_of,
    problems,
    router,
    set_etag,
)
from services.scoring.habits import habit_of
from services.scoring.models import RuleChange, Score, SegmentMove
from services.scoring.rules import Rules
from services.scoring.rules_api import CurrentRules, Reader
from services.scoring.rules_in_force import change_under_way
from services.scoring.segment_table import SegmentTable, segment_table

routes = router(prefix="/v1", tags=["scoring"])


_TOUCH = text("SELECT state, due_on FROM touch_plans WHERE client_id = :client_id")
_DAYS = text(
    "SELECT DISTINCT day FROM purchases WHERE client_id = :client_id AND NOT is_returned"
    " ORDER BY day"
)


class ClientNotScored(NotFound):
    """This client has no purchase yet, and so no score."""

    code = "client-not-scored"
    ru = "У клиента ещё нет покупок, поэтому нет и оценки."


class ScoreView(BaseModel):
    """A client's RFM widget: figures, ratings and segment.

    Attributes:
        recency_days: Days since the last purchase, today.
        monetary_minor: Kept in the period, minor units of the reporting currency.
        rule_version: Under which the ratings and the segment hold.
        changes_at: When the scores may change by age alone, at the earliest.
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


class WidgetView(ScoreView):
    """A client's score, and when somebody has to speak with them.

    Attributes:
        touch_state: none, waiting, due, overdue; null where nothing has been planned yet.
        usual_interval_days: Between purchase days, where the client buys in a habit: at least three
            intervals, the middle half of which differ by no more than the usual one is long.
        season_days: Between the beginnings of seasons, where the client buys in seasons instead: at
            least three, each after a pause of more than 60 days, at distances that differ by no
            more than a quarter.
        next_usual_on: When the habit expects the next purchase.
    """

    touch_state: str | None
    touch_due_on: date | None
    usual_interval_days: int | None
    season_days: int | None
    next_usual_on: date | None


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


@routes.get(
    "/clients/{client_id}/score",
    response_model=WidgetView,
    responses=problems(ClientNotScored),
    summary="A client's figures, ratings, segment and SLA state in one call",
)
async def show_score(
    client_id: UUID,
    session: Session,
    _user: Reader,
    rules: CurrentRules,
    now: Now,
    response: Response,
) -> WidgetView:
    score = await session.get(Score, client_id)
    if score is None:
        raise ClientNotScored(client_id=str(client_id))
    set_etag(response, score.seq)
    view = _view(score, rules, now, await change_under_way(session))
    touch = (await session.execute(_TOUCH, {"client_id": client_id})).one_or_none()
    habit = habit_of(
        list(await session.scalars(_DAYS, {"client_id": client_id})), rules.rule_set.habits
    )
    return WidgetView(
        **view.model_dump(),
        touch_state=touch.state if touch else None,
        touch_due_on=touch.due_on if touch else None,
        usual_interval_days=habit.every_days if habit and habit.kind == "interval" else None,
        season_days=habit.every_days if habit and habit.kind == "season" else None,
        next_usual_on=habit.next_on if habit else None,
    )


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
    change = await change_under_way(session)
    return page_of(
        rows,
        limit=limit,
        view=lambda row: _view(row, rules, now, change),
        sort_values=lambda row: [row.client_id],
        filters=filters,
    )


def _view(score: Score, rules: Rules, now: datetime, change: RuleChange | None) -> ScoreView:
    is_rated = change is None or (
        change.after_client_id is not None and score.client_id <= change.after_client_id
    )
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
        rule_version=rules.version if is_rated else score.rule_version,
        as_of=score.as_of,
        changes_at=score.due_at,
    )
