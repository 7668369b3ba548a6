"""HTTP in: acquisition costs, and what channels are worth."""

from datetime import date, datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import Depends, Query
from pydantic import BaseModel, Field, model_validator

from libs.shared.auth import Principal, Role, require
from libs.shared.errors import DomainError, NotFound
from libs.shared.field_types import AmountMinor, CalendarDay, Code, Text2000
from libs.shared.http import Db, Now, Request, problems, router
from libs.shared.ids import new_id
from libs.shared.policies import current
from services.scoring.acquisition.unit_economics import (
    CostGroup,
    UnitEconomicsPolicy,
    unit_economics,
)
from services.scoring.rules_in_force import rules_seen

routes = router(prefix="/v1", tags=["acquisition"])

Reader = Annotated[
    Principal, Depends(require(Role.SUPERVISOR, Role.ANALYST, Role.MARKETER, Role.INTEGRATION))
]
Writer = Annotated[
    Principal, Depends(require(Role.ANALYST, Role.MARKETER, Role.SUPERVISOR, Role.INTEGRATION))
]


class SpanBackwards(DomainError):
    """The span ends before it begins."""

    status = 422
    code = "span-backwards"
    ru = "Период кончается раньше, чем начинается."


class CostNotFound(NotFound):
    """There is no such cost."""

    code = "cost-not-found"
    ru = "Такой записи о затратах нет."


class EnterCost(Request):
    """Money spent on winning clients by a channel, from a day to a day, both included.

    Attributes:
        amount_minor: Minor units of the reporting currency.
    """

    channel: Code
    group: CostGroup
    first_day: CalendarDay
    last_day: CalendarDay
    amount_minor: AmountMinor
    note: Text2000 | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last_day < self.first_day:
            raise ValueError("the last day comes before the first")
        return self


class CostView(BaseModel):
    """A cost as it was entered."""

    cost_id: UUID
    channel: str
    group: str
    first_day: date
    last_day: date
    amount_minor: int
    note: str | None
    entered_at: datetime
    entered_by: str


class ChannelView(BaseModel):
    """A channel's figures; see `UnitEconomicsView` for the currency.

    Attributes:
        clients: Who came by it and bought, ever; `won`: for the first time in the period.
        repeat_share: Of `clients`, who bought on a second day.
        reviews: Of `clients`; `average_rating`: 1 to 5 (best), null where nobody rated.
        verdict: alarm (CAC has reached LTV), low, healthy, unknown.
    """

    channel: str
    costs_minor: dict[str, int]
    cost_minor: int
    clients: int
    won: int
    repeat_share: float
    reviews: int
    average_rating: float | None
    cac_minor: int | None
    ltv_minor: int | None
    ratio: Annotated[float | None, Field(description="LTV : CAC")]
    verdict: str


class UnitEconomicsView(BaseModel):
    """What clients cost and bring, by channel."""

    begin: date
    end: date
    currency: str
    channels: list[ChannelView]


@routes.post("/acquisition-costs", response_model=CostView, status_code=201, summary="Enter a cost")
async def enter_cost(cost: EnterCost, database: Db, user: Writer, now: Now) -> CostView:
    made = CostView(
        cost_id=new_id(),
        **cost.model_dump(),
        entered_at=now,
        entered_by=user.subject,
    )
    async with database.transaction() as tx:
        await tx.execute(
            "INSERT INTO acquisition_costs VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            *made.model_dump().values(),
        )
    return made


@routes.get("/acquisition-costs", summary="Costs of a period, newest first; at most 1,000")
async def list_costs(
    begin: Annotated[CalendarDay, Query()],
    end: Annotated[CalendarDay, Query()],
    database: Db,
    _user: Reader,
) -> list[CostView]:
    rows = await database.pool.fetch(
        "SELECT * FROM acquisition_costs WHERE first_day <= $2 AND last_day >= $1"
        " ORDER BY entered_at DESC, cost_id LIMIT 1000",
        begin,
        end,
    )
    return [
        CostView(**{("group" if k == "cost_group" else k): v for k, v in row.items()})
        for row in rows
    ]


@routes.delete(
    "/acquisition-costs/{cost_id}",
    status_code=204,
    responses=problems(CostNotFound),
    summary="Take back a cost that was entered by mistake",
)
async def take_back_cost(cost_id: UUID, database: Db, _user: Writer) -> None:
    async with database.transaction() as tx:
        done = await tx.execute("DELETE FROM acquisition_costs WHERE cost_id = $1", cost_id)
    if done.endswith(" 0"):
        raise CostNotFound(cost_id=str(cost_id))


@routes.get(
    "/unit-economics",
    response_model=UnitEconomicsView,
    responses=problems(SpanBackwards),
    summary="CAC, LTV and their ratio by channel",
)
async def show_unit_economics(
    begin: Annotated[CalendarDay, Query()],
    end: Annotated[CalendarDay, Query()],
    database: Db,
    _user: Reader,
) -> UnitEconomicsView:
    if end < begin:
        raise SpanBackwards
    async with database.pool.acquire() as connection:
        rules = await rules_seen(connection)
        policy = (await current(connection, UnitEconomicsPolicy)).body
        found = await unit_economics(connection, rules, policy, begin, end)
    return UnitEconomicsView(
        begin=begin,
        end=end,
        currency=rules.rule_set.reporting_currency,
        channels=[ChannelView.model_validate(c, from_attributes=True) for c in found],
    )
