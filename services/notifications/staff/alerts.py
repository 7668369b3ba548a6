"""What is heard becomes alerts, each once for each person, and is called off when it is over.

A lead is over when it was claimed, converted or closed. A touch is over when scoring says so, or
when a later event of its client's plan is heard. The events of a lead and those of a client's plan
come in their order; one that comes once more after later ones changes nothing.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from libs.shared import policies
from libs.shared.database import Connection
from libs.shared.events import (
    LeadClaimed,
    LeadClosed,
    LeadConverted,
    LeadUnanswered,
    TouchDue,
    TouchEnded,
    TouchOverdue,
)
from libs.shared.ids import new_id
from services.notifications.staff.policy import AlertRule, StaffAlertPolicy

_STAFF = """
    SELECT staff_id, is_supervisor FROM staff
    WHERE is_active AND (is_supervisor OR staff_id = ANY($1::uuid[])) ORDER BY staff_id
"""
_PLAN = """
    INSERT INTO alerts (alert_id, kind, subject_id, subject_no, client_id, manager_id, due_on,
        since, staff_id, channel, template, policy_version, planned_for, stale_at, due_at, state,
        changed_at)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::integer[], $5::uuid[], $6::uuid[],
        $7::date[], $8::timestamptz[], $9::uuid[], $10::text[], $11::text[], $12::integer[],
        $13::timestamptz[], $14::timestamptz[], $15::timestamptz[], $16::text[],
        $17::timestamptz[])
    ON CONFLICT (kind, subject_id, subject_no, staff_id, channel) DO NOTHING
"""
# What is being sent keeps its state: the message may be on its way (`sending.py` looks again).
_CALL_OFF = """
    UPDATE alerts AS a SET over_at = e.at,
        state = CASE WHEN a.state = 'planned' THEN 'cancelled' ELSE a.state END, due_at = NULL,
        reason = CASE WHEN a.state = 'planned' THEN e.reason ELSE a.reason END,
        changed_at = CASE WHEN a.state = 'planned' THEN e.at ELSE a.changed_at END
    FROM (SELECT alert_id, o.at, o.reason
        FROM alerts JOIN unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::text[])
            AS o (subject_id, before, at, reason) USING (subject_id)
        WHERE over_at IS NULL AND subject_no * 2 + (kind = 'touch_overdue')::int < before
        ORDER BY alert_id FOR UPDATE OF alerts) AS e
    WHERE a.alert_id = e.alert_id
"""
_STAGES = """
    SELECT subject_id, max(subject_no * 2 + (kind = 'touch_overdue')::int) AS stage FROM alerts
    WHERE subject_id = ANY($1::uuid[]) GROUP BY subject_id
"""


class Occasion(NamedTuple):
    """Something that staff are told of, its members in the order of the statement."""

    kind: str
    subject_id: UUID
    subject_no: int
    client_id: UUID
    manager_id: UUID | None
    due_on: date | None
    since: datetime


class Over(NamedTuple):
    """What makes alerts of a subject superfluous, its members in the order of the statement.

    Attributes:
        before: Those of an earlier stage: a touch has two, due and overdue, a lead has one.
    """

    subject_id: UUID
    before: int
    at: datetime
    reason: str


async def alert_of_unanswered_leads(events: Sequence[LeadUnanswered], tx: Connection) -> None:
    """Tell of leads that nobody has taken."""
    await _plan(
        tx,
        [
            Occasion(
                "lead_unanswered", e.lead_id, 0, e.client_id, e.manager_id, None, e.occurred_at
            )
            for e in events
        ],
    )


async def call_off_leads(
    events: Sequence[LeadClaimed] | Sequence[LeadConverted] | Sequence[LeadClosed], tx: Connection
) -> None:
    """Somebody has taken the lead, or there is nothing to take any more."""
    reason = type(events[0]).event_name.replace(".", "_")
    await _call_off(tx, [Over(e.lead_id, 1, e.occurred_at, reason) for e in events])


async def alert_of_touches(
    events: Sequence[TouchDue] | Sequence[TouchOverdue], tx: Connection
) -> None:
    """Tell of clients to be spoken with; of each, only what was said last counts."""
    kind = "touch_overdue" if isinstance(events[0], TouchOverdue) else "touch_due"
    newest: dict[UUID, TouchDue | TouchOverdue] = {}
    for event in events:
        known = newest.get(event.client_id)
        if known is None or known.touch_no < event.touch_no:
            newest[event.client_id] = event
    stages = {c: e.touch_no * 2 + (kind == "touch_overdue") for c, e in newest.items()}
    await _call_off(
        tx, [Over(c, stages[c], e.occurred_at, "superseded") for c, e in newest.items()]
    )
    later = {row["subject_id"]: row["stage"] for row in await tx.fetch(_STAGES, list(newest))}
    await _plan(
        tx,
        [
            Occasion(
                kind=kind,
                subject_id=client_id,
                subject_no=event.touch_no,
                client_id=client_id,
                manager_id=event.manager_id,
                due_on=event.due_on,
                since=event.occurred_at,
            )
            for client_id, event in newest.items()
            if later.get(client_id, 0) <= stages[client_id]
        ],
    )


async def call_off_ended_touches(events: Sequence[TouchEnded], tx: Connection) -> None:
    """Somebody has spoken with these clients, or need not any more."""
    await _call_off(
        tx,
        [
            Over(e.client_id, 2 * e.touch_no + 2, e.occurred_at, f"touch_{e.outcome}")
            for e in events
        ],
    )


async def _call_off(tx: Connection, over: Sequence[Over]) -> None:
    await tx.execute(_CALL_OFF, *(list(column) for column in zip(*over, strict=True)))


async def _plan(tx: Connection, occasions: Sequence[Occasion]) -> None:
    policy = await policies.current(tx, StaffAlertPolicy)
    staff = await tx.fetch(_STAFF, [o.manager_id for o in occasions if o.manager_id])
    known = {row["staff_id"] for row in staff}
    supervisors = [row["staff_id"] for row in staff if row["is_supervisor"]]
    rows = [
        _row(occasion, rule, staff_id, policy.version)
        for occasion in occasions
        for rule in policy.body.rules
        if rule.kind == occasion.kind
        for staff_id in (supervisors if rule.to == "supervisors" else known & {occasion.manager_id})
    ]
    if rows:
        await tx.execute(_PLAN, *(list(column) for column in zip(*rows, strict=True)))


def _row(
    occasion: Occasion, rule: AlertRule, staff_id: UUID, policy_version: int
) -> tuple[object, ...]:
    planned_for = occasion.since + timedelta(minutes=rule.after_minutes)
    return (
        new_id(),
        *occasion,
        staff_id,
        rule.channel,
        rule.template,
        policy_version,
        planned_for,
        occasion.since + timedelta(minutes=rule.stale_after_minutes),
        planned_for,
        "planned",
        occasion.since,
    )
