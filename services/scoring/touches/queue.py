"""Whom to call, in which order, and why.

In the queue is whoever's working day of the next touch has begun. First by the segment's priority,
then whose day is over, then the most valuable. A manager sees their own clients and, by policy,
those that nobody owns. Segments that are muted for a season are left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Literal, TypeAlias
from uuid import UUID

import asyncpg
from pydantic import BaseModel

from libs.shared.database import Connection
from services.scoring.touches.policy import QueuePolicy
from services.scoring.touches.terms import HOLD, Terms

COMMON_QUEUE = "'00000000-0000-0000-0000-000000000000'"  # of clients whom nobody owns
ORDER = "priority, state DESC, value_minor DESC, client_id"
# Only what is asked for stands in the text, with the limit as it is: for "any segment", "any list"
# and "any limit" PostgreSQL expects so little or so much that it plans each request anew, which
# takes longer than the request.
OPEN = "state IN ('due', 'overdue')"
_WALK = f"(SELECT * FROM touch_plans WHERE {OPEN} {{matching}} ORDER BY {ORDER} LIMIT {{limit}})"
FACTS = """client_id, p.owner_id, p.segment, p.priority, p.state, p.due_on, p.opens_at,
        p.closes_at, p.leased_by, p.leased_until, p.lease_no, s.recency_score, s.frequency_score,
        s.monetary_score, s.frequency, s.monetary_minor, s.last_day, t.last_touch_at, t.promised,
        t.promised_until"""
JOINED = "JOIN scores AS s USING (client_id) LEFT JOIN touches AS t USING (client_id)"
# Whoever is on the page is found before anything is looked up about them.
_PAGE = f"""
    WITH terms AS MATERIALIZED ({HOLD}), first AS MATERIALIZED (
        SELECT *, row_number() OVER (ORDER BY {ORDER}) AS place FROM ({{plans}}) AS plan
        WHERE (SELECT hold FROM terms) ORDER BY {ORDER} LIMIT {{limit}}
    )
    SELECT hold, entry.* FROM terms LEFT JOIN (SELECT place, {FACTS} FROM first AS p {JOINED})
        AS entry ON true ORDER BY place
"""
_ONE = f"SELECT 1 AS place, {FACTS} FROM touch_plans AS p {JOINED} WHERE client_id = $1"

Row: TypeAlias = asyncpg.Record
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
    connection: Connection,
    terms: Terms,
    *,
    now: datetime,
    limit: int,
    manager_id: UUID | None = None,
    segment: str | None = None,
    state: State | None = None,
) -> list[dict[str, Any]] | None:
    """The first clients of the queue, in the order in which to call them.

    Args:
        manager_id: Whose queue; None: everybody's.

    Returns:
        Values of `QueueEntry`; None when other terms are in force.
    """
    values: list[Any] = [*terms.versions]
    matching = not_muted(terms, now, values)
    if segment is not None:
        matching += f" AND segment = {place_of(segment, values)}"
    if state is not None:
        matching += f" AND state = {place_of(state, values)}"
    queues = [""]
    if manager_id is not None:
        # Two ordered walks over one index; a condition with OR would sort everything there is.
        queues = [f" AND queue_of = {place_of(manager_id, values)}"]
        queues += [f" AND queue_of = {COMMON_QUEUE}"] if terms.policy.common_queue else []
    walks = [_WALK.format(matching=matching + queue, limit=limit) for queue in queues]
    page = _PAGE.format(plans=" UNION ALL ".join(walks), limit=limit)
    rows = await connection.fetch(page, *values)
    if not rows[0]["hold"]:
        return None
    return entries([row for row in rows if row["client_id"] is not None], terms, now)


def place_of(value: object, values: list[Any]) -> str:
    """The placeholder of another parameter."""
    values.append(value)
    return f"${len(values)}"


def not_muted(terms: Terms, now: datetime, values: list[Any]) -> str:
    """Condition that leaves out the segments that are not called at this time of the year."""
    muted = terms.policy.muted_on(terms.rules.day_of(now))
    return f" AND segment <> ALL({place_of(muted, values)}::text[])" if muted else ""


async def plan_of(connection: Connection, client_id: UUID) -> asyncpg.Record:
    """What a client's entry is made of, whatever their place; they must be in the queue."""
    row = await connection.fetchrow(_ONE, client_id)
    assert row is not None  # noqa: S101  # whoever is planned for has a score
    return row


def entries(rows: Iterable[Row], terms: Terms, now: datetime) -> list[dict[str, Any]]:
    """Values of `QueueEntry`, in its order; no models, for a page has many.

    Args:
        rows: With `FACTS` and `place`.
    """
    treatment = terms.rules.rule_set.treatment()
    labels = {name: rule.label for name, rule in treatment.items()}
    today = terms.rules.day_of(now)
    return [_entry(row, terms, labels, now, today) for row in rows]


def _entry(
    row: Row, terms: Terms, labels: Mapping[str, str], now: datetime, today: date
) -> dict[str, Any]:
    label = labels.get(row["segment"], row["segment"])
    is_overdue = row["state"] == "overdue"
    is_leased = row["leased_until"] is not None and row["leased_until"] > now
    hints = hints_of(row, terms.policy)
    since = (today - row["last_day"]).days
    currency = terms.rules.rule_set.reporting_currency
    return {
        "place": row["place"],
        "client_id": row["client_id"],
        "owner_id": row["owner_id"],
        "segment": row["segment"],
        "segment_label": label,
        "priority": row["priority"],
        "state": row["state"],
        "due_on": row["due_on"],
        "due_since": row["opens_at"],
        "overdue_since": row["closes_at"] if is_overdue else None,
        "overdue_days": (today - row["due_on"]).days if is_overdue else 0,
        "recency_score": row["recency_score"],
        "frequency_score": row["frequency_score"],
        "monetary_score": row["monetary_score"],
        "days_since_purchase": since,
        "frequency": row["frequency"],
        "monetary_minor": row["monetary_minor"],
        "currency": currency,
        "last_touch_at": row["last_touch_at"],
        "promised": row["promised"],
        "promised_until": row["promised_until"],
        "hints": hints,
        "leased_by": row["leased_by"] if is_leased else None,
        "leased_until": row["leased_until"] if is_leased else None,
        "reason": _reason(row, label, since, hints, currency),
    }


def hints_of(row: Row, policy: QueuePolicy) -> list[Hint]:
    """Who needs attention at once, and who may well buy more.

    Args:
        row: With state, priority and the three ratings.
    """
    hints: list[Hint] = []
    if row["state"] == "overdue" and row["priority"] <= policy.urgent_up_to_priority:
        hints.append("urgent")
    if (
        row["recency_score"] >= policy.upsell_recency
        and row["frequency_score"] >= policy.upsell_frequency
        and row["monetary_score"] <= policy.upsell_monetary
    ):
        hints.append("upsell")
    return hints


def _reason(row: Row, label: str, since: int, hints: Sequence[Hint], currency: str) -> str:
    told = (
        f"{label}: дней с покупкой за период {row['frequency']},"
        f" сумма {row['monetary_minor'] / 100:.2f} {currency}, последняя покупка {since} дн. назад"
    )
    if row["state"] == "overdue":
        told += f"; касание просрочено, срок был {row['due_on']:%d.%m.%Y}"
    else:
        told += "; касание сегодня"
    if row["promised"]:
        told += f"; обещано: {row['promised']}"
        told += f" (до {row['promised_until']:%d.%m.%Y})" if row["promised_until"] else ""
    if "urgent" in hints:
        told += "; срочно"
    if "upsell" in hints:
        told += "; можно предложить больше"
    return told
