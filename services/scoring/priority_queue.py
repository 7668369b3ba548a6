"""Whom to call first: by segment priority, then whose touch is overdue, the most valuable first.

When a touch is due is the segment's SLA (`touch_sla.py`): so many days or working days after the
last touch or purchase, or on the working day of each purchase.
"""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.scoring.rules import Rules
from services.scoring.touch_sla import working_days

# width_bucket tells how many working days lie up to and including a day: see WorkingDays.
_QUEUE = text("""
    SELECT * FROM (SELECT due.*, CAST(:today AS date) - due_on AS overdue_days FROM (
        SELECT s.client_id, s.segment, t.priority, s.recency_score, s.frequency_score,
            s.monetary_score, s.frequency, s.monetary_minor, s.last_day, touches.last_touch_at,
            CAST(:today AS date) - s.last_day AS days_since_purchase,
            CASE WHEN t.same_day AND touched.day < s.last_day
                THEN w.days[width_bucket(s.last_day - 1, w.days) + 1]
            WHEN t.unit = 'days' THEN greatest(s.last_day, touched.day) + t.every
            ELSE w.days[width_bucket(greatest(s.last_day, touched.day), w.days) + t.every]
            END AS due_on
        FROM unnest(CAST(:segments AS text[]), CAST(:priorities AS int[]), CAST(:every AS int[]),
            CAST(:units AS text[]), CAST(:same_day AS boolean[]))
            AS t (segment, priority, every, unit, same_day)
        JOIN scores AS s USING (segment) LEFT JOIN touches USING (client_id)
        CROSS JOIN (SELECT CAST(:working_days AS date[]) AS days) AS w
        CROSS JOIN LATERAL (SELECT coalesce(
            CAST(touches.last_touch_at AT TIME ZONE :zone AS date), '-infinity') AS day) AS touched
        WHERE CAST(:segment AS text) IS NULL OR s.segment = :segment
    ) AS due) AS queue
    ORDER BY priority, overdue_days IS NULL OR overdue_days <= 0, monetary_minor DESC, client_id
    LIMIT :limit
""")


class QueueEntry(BaseModel):
    """One client to call, and why.

    Attributes:
        overdue_days: Days since a touch was due; negative while it is not due yet, null when none
            is asked for.
        reason: For the manager, in Russian.
    """

    place: int
    client_id: UUID
    segment: str
    segment_label: str
    priority: int
    overdue_days: int | None
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
    today = rules.day_of(now)
    rows = await session.execute(
        _QUEUE,
        {
            "today": today,
            "working_days": working_days(rules.rule_set.calendar, today).days,
            "zone": rules.rule_set.zone,
            "segments": list(treatment),
            "priorities": [rule.priority for rule in treatment.values()],
            "every": [rule.sla.every for rule in treatment.values()],
            "units": [rule.sla.unit for rule in treatment.values()],
            "same_day": [rule.sla.same_working_day for rule in treatment.values()],
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
    late: int | None = row.overdue_days  # type: ignore[attr-defined]
    told = f"{label}: дней с покупкой за период {bought}, сумма {money / 100:.2f} {currency}"
    told += f", последняя покупка {since} дн. назад"
    if late is None:
        return told
    if late > 0:
        return f"{told}; касание просрочено на {late} дн."
    return f"{told}; касание через {-late} дн." if late < 0 else f"{told}; касание сегодня"
