"""Whom to call first: by segment priority, then whose touch is overdue, the most valuable first.

A touch is due so many days (the segment's `touch_every_days`) after the last touch, or after the
last purchase where nobody has spoken with the client since.
"""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.scoring.rules import Rules

_QUEUE = text("""
    SELECT * FROM (SELECT s.client_id, s.segment, t.priority, s.recency_score, s.frequency_score,
        s.monetary_score, s.frequency, s.monetary_minor, s.last_day, touches.last_touch_at,
        CAST(:today AS date) - s.last_day AS days_since_purchase,
        CAST(:today AS date) - (greatest(s.last_day,
            (touches.last_touch_at AT TIME ZONE :zone)::date) + t.every_days) AS overdue_days
    FROM unnest(CAST(:segments AS text[]), CAST(:priorities AS int[]), CAST(:every AS int[]))
        AS t (segment, priority, every_days)
    JOIN scores AS s USING (segment) LEFT JOIN touches USING (client_id)
    WHERE CAST(:segment AS text) IS NULL OR s.segment = :segment
    ) AS due ORDER BY priority, overdue_days <= 0, monetary_minor DESC, client_id
    LIMIT :limit
""")


class QueueEntry(BaseModel):
    """One client to call, and why.

    Attributes:
        overdue_days: Days since a touch was due; negative while it is not due yet.
        reason: For the manager, in Russian.
    """

    place: int
    client_id: UUID
    segment: str
    segment_label: str
    priority: int
    overdue_days: int
    days_since_purchase: int
    frequency: int
    monetary_minor: int
    currency: str
    last_touch_at: datetime | None
    reason: str


async def whom_to_call(
    session: AsyncSession, rules: Rules, *, now: datetime, limit: int, segment: str | None = None
) -> list[QueueEntry]:
    """The first clients of the queue, in the order in which to call them."""
    treatment = rules.rule_set.treatment()
    rows = await session.execute(
        _QUEUE,
        {
            "today": rules.day_of(now),
            "zone": rules.rule_set.zone,
            "segments": list(treatment),
            "priorities": [rule.priority for rule in treatment.values()],
            "every": [rule.touch_every_days for rule in treatment.values()],
            "segment": segment,
            "limit": limit,
        },
    )
    return [
        QueueEntry(
            place=place,
            client_id=row.client_id,
            segment=row.segment,
            segment_label=treatment[row.segment].label,
            priority=row.priority,
            overdue_days=row.overdue_days,
            days_since_purchase=row.days_since_purchase,
            frequency=row.frequency,
            monetary_minor=row.monetary_minor,
            currency=rules.rule_set.reporting_currency,
            last_touch_at=row.last_touch_at,
            reason=_reason(row, treatment[row.segment].label, rules.rule_set.reporting_currency),
        )
        for place, row in enumerate(rows, start=1)
    ]


def _reason(row: object, label: str, currency: str) -> str:
    bought: int = row.frequency  # type: ignore[attr-defined]  # a row of the query above
    money: int = row.monetary_minor  # type: ignore[attr-defined]
    since: int = row.days_since_purchase  # type: ignore[attr-defined]
    late: int = row.overdue_days  # type: ignore[attr-defined]
    told = f"{label}: дней с покупкой за период {bought}, сумма {money / 100:.2f} {currency}"
    told += f", последняя покупка {since} дн. назад"
    if late > 0:
        return f"{told}; касание просрочено на {late} дн."
    return f"{told}; касание через {-late} дн." if late < 0 else f"{told}; касание сегодня"
