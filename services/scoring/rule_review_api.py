"""HTTP in: reviews of the rules in force, and when the next one is due."""

from datetime import date, datetime
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import select

from libs.shared.http import (
    Cursor,
    CursorInvalid,
    CursorText,
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
from libs.shared.ids import new_id
from libs.shared.policies import current
from services.scoring.rule_review import RuleReview, RuleReviewPolicy, review_due_on
from services.scoring.rules_api import Analyst, CurrentRules, Reader

routes = router(prefix="/v1", tags=["scoring"])


class KeepRules(Request):
    """The rules were looked at and stay as they are."""

    note: Text2000


class RuleReviewView(BaseModel):
    """A review that kept the rules."""

    review_id: UUID
    rule_version: int
    note: str
    reviewed_at: datetime
    reviewed_by: str


class NextReview(BaseModel):
    """When the rules in force are to be looked at again."""

    rule_version: int
    due_on: date
    is_due: bool


@routes.get("/rule-reviews/next", summary="When the rules in force are to be looked at again")
async def show_next_review(
    session: Session, _user: Reader, rules: CurrentRules, now: Now
) -> NextReview:
    due_on = await review_due_on(session, rules, (await current(session, RuleReviewPolicy)).body)
    return NextReview(rule_version=rules.version, due_on=due_on, is_due=due_on <= rules.day_of(now))


@routes.get(
    "/rule-reviews",
    responses=problems(CursorInvalid),
    summary="Reviews that kept the rules, the newest first",
)
async def list_reviews(
    session: Session, _user: Reader, cursor: CursorText = None, limit: Limit = 50
) -> Page[RuleReviewView]:
    query = select(RuleReview)
    if after := Cursor.decode(cursor, tuple[UUID]):
        query = query.where(RuleReview.review_id < after[0])
    query = query.order_by(RuleReview.review_id.desc()).limit(limit + 1)
    rows = (await session.scalars(query)).all()
    return page_of(rows, limit=limit, view=_view, sort_values=lambda row: [row.review_id])


@routes.post(
    "/rule-reviews",
    response_model=RuleReviewView,
    status_code=201,
    summary="Note that the rules in force were looked at and stay as they are",
)
async def keep_rules(
    wish: KeepRules, session: Session, user: Analyst, rules: CurrentRules, now: Now
) -> RuleReviewView:
    row = RuleReview(
        review_id=new_id(),
        rule_version=rules.version,
        note=wish.note,
        reviewed_at=now,
        reviewed_by=user.subject,
    )
    session.add(row)
    await session.flush()
    return _view(row)


def _view(row: RuleReview) -> RuleReviewView:
    return RuleReviewView.model_validate(row, from_attributes=True)
