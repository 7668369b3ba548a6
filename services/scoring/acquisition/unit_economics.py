"""LTV and CAC by channel, and whether a channel pays.

CAC is all costs of a channel in a period, over the clients won in it; LTV what a client of the
channel has brought so far, less what was returned, times the margin. A channel whose clients cost
what they bring, or more, is an alarm; one that earns three times its costs is healthy.

Source: requirements P-09 to P-11, S-22.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from libs.shared.database import Connection
from libs.shared.policies import Policy
from services.scoring.rules import Rules

UNKNOWN = "unknown"  # clients who bought without a lead that we heard of

CostGroup = Literal["ad_budgets", "marketing_pay_and_commissions", "software", "content_and_events"]

# A cost that reaches beyond the period counts by its days in it.
_COSTS = """
    SELECT channel, cost_group, sum(amount_minor::numeric
        * (least(last_day, $2) - greatest(first_day, $1) + 1) / (last_day - first_day + 1)) AS cost
    FROM acquisition_costs WHERE first_day <= $2 AND last_day >= $1 GROUP BY channel, cost_group
"""
_WON = """
    SELECT coalesce(a.channel, $5) AS channel, count(*) AS clients,
        count(*) FILTER (WHERE first_day BETWEEN $1 AND $2) AS won,
        sum(value_minor)::float8 AS brought, count(*) FILTER (WHERE days > 1) AS came_back,
        coalesce(sum(reviews), 0)::int AS reviews,
        (sum(rated) / nullif(sum(ratings), 0))::float8 AS average_rating
    FROM (
        SELECT client_id, min(day) AS first_day, count(DISTINCT day) AS days,
            sum(round((amount_minor - returned_minor) * rate)) AS value_minor
        FROM purchases JOIN unnest($3::text[], $4::numeric[]) AS r (currency, rate) USING (currency)
        WHERE NOT is_returned GROUP BY client_id
    ) AS bought LEFT JOIN acquisitions AS a USING (client_id) LEFT JOIN (
        SELECT client_id, count(*) AS reviews, count(rating) AS ratings, sum(rating) AS rated
        FROM reviews GROUP BY client_id
    ) AS told USING (client_id) GROUP BY 1
"""


class UnitEconomicsPolicy(Policy, name="unit-economics"):
    """When a channel pays."""

    healthy_ratio: Annotated[float, Field(strict=True, gt=1, le=100)] = 3.0
    margin_percent: Annotated[float, Field(strict=True, gt=0, le=100)] = 100.0  # of money kept


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel's figures; money in minor units of the reporting currency.

    Attributes:
        clients: Who came by it and bought, ever; `won`: for the first time in the period.
        repeat_share: Of `clients`, who bought on a second day.
        reviews: Of `clients`, with or without a rating; `average_rating`: 1 to 5, null: none.
        cac_minor: Null: nobody was won. `ratio`: null where there is no CAC or it is 0.
        verdict: alarm (CAC has reached LTV), low, healthy, unknown (no costs or nobody won).
    """

    channel: str
    costs_minor: Mapping[str, int]
    cost_minor: int
    clients: int
    won: int
    repeat_share: float
    reviews: int
    average_rating: float | None
    cac_minor: int | None
    ltv_minor: int | None
    ratio: float | None
    verdict: str


async def unit_economics(
    connection: Connection, rules: Rules, policy: UnitEconomicsPolicy, begin: date, end: date
) -> list[Channel]:
    """Every channel with costs or clients, the dearest first; both days are included."""
    costs: dict[str, dict[str, int]] = {}
    for channel, group, cost in await connection.fetch(_COSTS, begin, end):
        costs.setdefault(channel, {})[group] = round(cost)
    rates = list(rules.rates), list(rules.rates.values())
    won = {row["channel"]: row for row in await connection.fetch(_WON, begin, end, *rates, UNKNOWN)}
    found = []
    for name in costs.keys() | won.keys():
        row = won.get(name)
        found.append(
            judged(
                name,
                costs.get(name, {}),
                clients=row["clients"] if row else 0,
                won=row["won"] if row else 0,
                came_back=row["came_back"] if row else 0,
                reviews=row["reviews"] if row else 0,
                average_rating=row["average_rating"] if row else None,
                brought_minor=row["brought"] if row else 0.0,
                policy=policy,
            )
        )
    return sorted(found, key=lambda channel: (-channel.cost_minor, channel.channel))


def judged(
    name: str,
    costs: Mapping[str, int],
    *,
    clients: int,
    won: int,
    came_back: int,
    reviews: int = 0,
    average_rating: float | None = None,
    brought_minor: float,
    policy: UnitEconomicsPolicy,
) -> Channel:
    """A channel's figures and what they mean."""
    cost = sum(costs.values())
    cac = cost / won if won else None
    ltv = brought_minor * policy.margin_percent / 100 / clients if clients else None
    ratio = ltv / cac if cac and ltv is not None else None
    verdict = "unknown"
    if ratio is not None:
        verdict = "healthy" if ratio >= policy.healthy_ratio else "low" if ratio > 1 else "alarm"
    elif cost and not won:
        verdict = "alarm"  # money was spent and nobody came
    return Channel(
        name,
        costs,
        cost,
        clients,
        won,
        came_back / clients if clients else 0.0,
        reviews,
        average_rating,
        None if cac is None else round(cac),
        None if ltv is None else round(ltv),
        ratio,
        verdict,
    )
