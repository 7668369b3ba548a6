"""HTTP in: what held at a past moment."""

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel

from libs.shared.errors import DomainError
from libs.shared.field_types import CalendarDay, Instant
from libs.shared.http import Db, Now, problems, router
from services.scoring.api import ClientNotScored
from services.scoring.past import Migration, migration, standing_at
from services.scoring.rules_api import Reader

routes = router(prefix="/v1", tags=["scoring"])


class NotPast(DomainError):
    """This moment has not passed yet, or the span ends before it begins."""

    status = 422
    code = "not-past"
    ru = "Этот момент ещё не наступил, или период кончается раньше, чем начинается."


class PastScoreView(BaseModel):
    """A client's figures, ratings and segment at a past moment.

    Attributes:
        rule_version: The rules that were in force then.
        monetary_minor: Kept in the period that ended then.
    """

    client_id: UUID
    at: datetime
    segment: str
    segment_label: str
    recency_score: int
    frequency_score: int
    monetary_score: int
    recency_days: int
    last_purchase_day: date
    frequency: int
    monetary_minor: int
    currency: str
    rule_version: int


class MigrationView(BaseModel):
    """Clients who were in one segment at the begin and in another, or the same, at the end.

    Attributes:
        before: Null: had not bought yet.
        after: Null: everything was returned.
        direction: `rose` when recency, frequency and money together are rated higher at the end.
        money_before: Kept in the period that ended at the begin of the span, minor units.
        examples: The most valuable of those whose segment differs.
    """

    before: str | None
    after: str | None
    direction: str
    clients: int
    money_before: int
    money_after: int
    examples: list[UUID]


class MigrationSum(BaseModel):
    """Clients whose segment differs, and their money at both ends."""

    clients: int
    money_before: int
    money_after: int


class MigrationTable(BaseModel):
    """Who went where between the ends of two days."""

    begin: date
    end: date
    rose: MigrationSum
    fell: MigrationSum
    moves: list[MigrationView]


DIRECTIONS = {1: "rose", -1: "fell", 0: "level"}


@routes.get(
    "/clients/{client_id}/score-at",
    response_model=PastScoreView,
    responses=problems(ClientNotScored, NotPast),
    summary="A client's score and segment at a past moment",
)
async def show_past_score(
    client_id: UUID, at: Annotated[Instant, Query()], database: Db, _user: Reader, now: Now
) -> PastScoreView:
    if at > now:
        raise NotPast
    async with database.pool.acquire() as connection:
        then = await standing_at(connection, client_id, at)
    if then is None:
        raise ClientNotScored(client_id=str(client_id))
    return PastScoreView(
        client_id=client_id,
        at=at,
        segment=then.segment,
        segment_label=then.rules.rule_set.treatment()[then.segment].label,
        recency_score=then.scores.recency,
        frequency_score=then.scores.frequency,
        monetary_score=then.scores.monetary,
        recency_days=then.figures.recency_days,
        last_purchase_day=then.last_day,
        frequency=then.figures.frequency,
        monetary_minor=then.figures.monetary_minor,
        currency=then.rules.rule_set.reporting_currency,
        rule_version=then.rules.version,
    )


@routes.get(
    "/segment-migration",
    response_model=MigrationTable,
    responses=problems(NotPast),
    summary="Who rose, who fell and who came between the ends of two days, and their money",
)
async def show_migration(
    begin: Annotated[CalendarDay, Query()],
    end: Annotated[CalendarDay, Query()],
    database: Db,
    _user: Reader,
    now: Now,
) -> MigrationTable:
    if not begin <= end <= now.date():
        raise NotPast
    async with database.pool.acquire() as connection, connection.transaction():
        found = await migration(connection, begin, end)
    return MigrationTable(
        begin=begin,
        end=end,
        rose=_sum(found, 1),
        fell=_sum(found, -1),
        moves=[
            MigrationView(
                before=m.before,
                after=m.after,
                direction=DIRECTIONS[m.direction],
                clients=m.clients,
                money_before=m.money_before,
                money_after=m.money_after,
                examples=[UUID(bytes=client.bytes) for client in m.examples],
            )
            for m in sorted(found, key=lambda m: (-m.clients, m.before or "", m.after or ""))
        ],
    )


def _sum(found: list[Migration], direction: int) -> MigrationSum:
    moved = [m for m in found if m.before != m.after and m.direction == direction]
    return MigrationSum(
        clients=sum(m.clients for m in moved),
        money_before=sum(m.money_before for m in moved),
        money_after=sum(m.money_after for m in moved),
    )
