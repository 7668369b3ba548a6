"""The base by segment: how many clients, what share of the money, how recent."""

from datetime import datetime

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.scoring.purchase_count import purchase_count
from services.scoring.rules import Rules

_TABLE = text("""
    SELECT segment, count(*) AS clients, sum(monetary_minor)::bigint AS monetary_minor,
        avg(CAST(:today AS date) - last_day)::float8 AS mean_recency_days,
        avg(frequency)::float8 AS mean_frequency
    FROM scores WHERE segment IS NOT NULL GROUP BY segment
""")


class SegmentLine(BaseModel):
    """One segment.

    Attributes:
        money_share: 0 to 1, of the money kept in the period by all segments.
    """

    segment: str
    label: str
    priority: int
    clients: int
    monetary_minor: int
    money_share: float
    mean_recency_days: float
    mean_frequency: float


class SegmentTable(BaseModel):
    """All segments of the rule set in force, by priority; empty ones too."""

    rule_version: int
    currency: str
    clients: int
    purchases: int  # heard and not wholly returned
    segments: list[SegmentLine]


async def segment_table(session: AsyncSession, rules: Rules, *, now: datetime) -> SegmentTable:
    """The table as of now. Clients of a retired segment appear under its name until rescored."""
    rows = {row.segment: row for row in await session.execute(_TABLE, {"today": rules.day_of(now)})}
    treatment = rules.rule_set.treatment()
    money = sum(row.monetary_minor for row in rows.values())
    lines = []
    for name in [*treatment, *(name for name in rows if name not in treatment)]:
        row, rule = rows.get(name), treatment.get(name)
        lines.append(
            SegmentLine(
                segment=name,
                label=rule.label if rule else name,
                priority=rule.priority if rule else 99,
                clients=row.clients if row else 0,
                monetary_minor=row.monetary_minor if row else 0,
                money_share=row.monetary_minor / money if row and money else 0.0,
                mean_recency_days=row.mean_recency_days if row else 0.0,
                mean_frequency=row.mean_frequency if row else 0.0,
            )
        )
    return SegmentTable(
        rule_version=rules.version,
        currency=rules.rule_set.reporting_currency,
        clients=sum(row.clients for row in rows.values()),
        purchases=await purchase_count(session),
        segments=sorted(lines, key=lambda line: (line.priority, line.segment)),
    )
