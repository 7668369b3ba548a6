"""Whom to call, in which order, and why.

In the queue is whoever's working day of the next touch has begun. First by the segment's priority,
then whose day is over, then the most valuable. A manager sees their own clients and, by policy,
those that nobody owns. Segments that are muted for a season are left out.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.scoring.rules import Rules
from services.scoring.touches.policy import QueuePolicy

COMMON_QUEUE = "'00000000-0000-0000-0000-000000000000'"  # of clients whom nobody owns
_ORDER = "priority, state DESC, value_minor DESC, client_id"
_OPEN = "state IN ('due', 'overdue')"
_MATCHING = """
    AND (CAST(:segment AS text) IS NULL OR segment = :segment)
    AND (CAST(:state AS text) IS NULL OR state = :state)
    AND segment <> ALL(CAST(:muted AS text[]))
"""
_OF_EVERYBODY = f"""
    SELECT * FROM touch_plans WHERE {_OPEN} {_MATCHING} ORDER BY {_ORDER} LIMIT :limit
"""
# Two ordered walks over one index; a condition with OR would sort everything there is.
_OF_MANAGER = f"""
    (SELECT * FROM touch_plans WHERE queue_of = :manager_id AND {_OPEN} {_MATCHING}
        ORDER BY {_ORDER} LIMIT :limit)
    UNION ALL
    (SELECT * FROM touch_plans WHERE queue_of = {COMMON_QUEUE} AND :common AND {_OPEN} {_MATCHING}
        ORDER BY {_ORDER} LIMIT :limit)
"""
_ENTRIES = """
    SELECT p.*, s.recency_score, s.frequency_score, s.monetary_score, s.frequency,
        s.monetary_minor, s.last_day, t.last_touch_at, t.promised, t.promised_until
    FROM ({plans}) AS p JOIN scores AS s USING (client_id) LEFT JOIN touches AS t USING (client_id)
    ORDER BY p.priority, p.state DESC, p.value_minor DESC, p.client_id LIMIT :limit
"""
_QUEUE_OF_EVERYBODY = text(_ENTRIES.format(plans=_OF_EVERYBODY))
_QUEUE_OF_MANAGER = text(_ENTRIES.format(plans=_OF_MANAGER))
_ONE = text(_ENTRIES.format(plans="SELECT * FROM touch_plans WHERE client_id = :client_id"))

State = Literal["due", "overdue"]
Hint = Literal["urgent", "upsell"]


class QueueEntry(BaseModel):
    """One client to call, and why.

    Attributes:
        due_since: When the working day of the touch began.
        overdue_since: When it was over; null while it is going on.
        promised: What was promised to the client last, and until when.
        hints: urgent: somebody important waits too long; upsell: may well buy more.
        leased_by: Who has the client in hand, until `leased_until`.
        reason: For the manager, in Russian.
    """

    place: int
    client_id: UUID
    owner_id: UUID | None
    segment: str
    segment_label: str
    priority: int
    state: State
    due_on: date
    due_since: datetime
    overdue_since: datetime | None
    overdue_days: int
    recency_score: int
    frequency_score: int
    monetary_score: int
    days_since_purchase: int
    frequency: int
    monetary_minor: int
    currency: str
    last_touch_at: datetime | None
    promised: str | None
    promised_until: date | None
    hints: list[Hint]
    leased_by: UUID | None
    leased_until: datetime | None
    reason: str


async def whom_to_call(
    session: AsyncSession,
    rules: Rules,
    policy: QueuePolicy,
    *,
    now: datetime,
    limit: int,
    manager_id: UUID | None = None,
    segment: str | None = None,
    state: State | None = None,
) -> list[QueueEntry]:
    """The first clients of the queue, in the order in which to call them.

    Args:
        manager_id: Whose queue; None: everybody's.
    """
    muted = policy.muted_on(rules.day_of(now))
    given = {"limit": limit, "segment": segment, "state": state, "muted": muted}
    if manager_id is None:
        rows = await session.execute(_QUEUE_OF_EVERYBODY, given)
    else:
        of_manager = {"manager_id": manager_id, "common": policy.common_queue}
        rows = await session.execute(_QUEUE_OF_MANAGER, given | of_manager)
    return _entries(rows.all(), rules, policy, now)


async def entry_of(
    session: AsyncSession, client_id: UUID, rules: Rules, policy: QueuePolicy, now: datetime
) -> QueueEntry:
    """A client's entry, whatever their place; they must be in the queue."""
    rows = await session.execute(_ONE, {"client_id": client_id, "limit": 1})
    return _entries(rows.all(), rules, policy, now)[0]


def _entries(
    rows: Sequence[Any], rules: Rules, policy: QueuePolicy, now: datetime
) -> list[QueueEntry]:
    treatment = rules.rule_set.treatment()
    today = rules.day_of(now)
    entries = []
    for place, row in enumerate(rows, start=1):
        rule = treatment.get(row.segment)
        is_leased = row.leased_until is not None and row.leased_until > now
        label = rule.label if rule else row.segment
        hints = hints_of(row, policy)
        since = (today - row.last_day).days
        entry = QueueEntry(
            place=place,
            client_id=row.client_id,
            owner_id=row.owner_id,
            segment=row.segment,
            segment_label=label,
            priority=row.priority,
            state=row.state,
            due_on=row.due_on,
            due_since=row.opens_at,
            overdue_since=row.closes_at if row.state == "overdue" else None,
            overdue_days=(today - row.due_on).days if row.state == "overdue" else 0,
            recency_score=row.recency_score,
            frequency_score=row.frequency_score,
            monetary_score=row.monetary_score,
            days_since_purchase=since,
            frequency=row.frequency,
            monetary_minor=row.monetary_minor,
            currency=rules.rule_set.reporting_currency,
            last_touch_at=row.last_touch_at,
            promised=row.promised,
            promised_until=row.promised_until,
            hints=hints,
            leased_by=row.leased_by if is_leased else None,
            leased_until=row.leased_until if is_leased else None,
            reason=_reason(row, label, since, hints, rules.rule_set.reporting_currency),
        )
        entries.append(entry)
    return entries


def hints_of(row: Any, policy: QueuePolicy) -> list[Hint]:
    """Who needs attention at once, and who may well buy more.

    Args:
        row: With state, priority and the three ratings.
    """
    hints: list[Hint] = []
    if row.state == "overdue" and row.priority <= policy.urgent_up_to_priority:
        hints.append("urgent")
    if (
        row.recency_score >= policy.upsell_recency
        and row.frequency_score >= policy.upsell_frequency
        and row.monetary_score <= policy.upsell_monetary
    ):
        hints.append("upsell")
    return hints


def _reason(row: Any, label: str, since: int, hints: Sequence[Hint], currency: str) -> str:
    told = (
        f"{label}: дней с покупкой за период {row.frequency},"
        f" сумма {row.monetary_minor / 100:.2f} {currency}, последняя покупка {since} дн. назад"
    )
    if row.state == "overdue":
        told += f"; касание просрочено, срок был {row.due_on:%d.%m.%Y}"
    else:
        told += "; касание сегодня"
    if row.promised:
        told += f"; обещано: {row.promised}"
        told += f" (до {row.promised_until:%d.%m.%Y})" if row.promised_until else ""
    if "urgent" in hints:
        told += "; срочно"
    if "upsell" in hints:
        told += "; можно предложить больше"
    return told
