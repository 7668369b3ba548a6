"""Reminders are planned with the meeting, move with it and are taken back with it.

A reminder belongs to one version of the meeting. Planning makes one for each stage of the policy;
a newer version takes those of the older ones back and plans its own, in the transaction that hears
of it. A stage whose time had passed when the meeting was planned is written down as skipped, never
sent late. What is due is turned into messages by `due_reminders.py`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from libs.shared import outbox, policies
from libs.shared.database import Connection
from libs.shared.events import (
    Event,
    InteractionCancelled,
    InteractionHeld,
    InteractionMoved,
    InteractionPlanned,
    ReminderCancelled,
    ReminderScheduled,
)
from libs.shared.ids import new_id
from services.notifications.meetings import (
    MeetingVersion,
    adopt,
    cancelled,
    held,
    one_of_each,
    standing,
)
from services.notifications.reminder_policy import ReminderPolicy, Stage

STAGE_PASSED = "stage_passed"

_PLAN = """
    INSERT INTO reminders (reminder_id, interaction_id, interaction_version, client_id, stage,
        channel, template, policy_version, planned_for, due_at, state, reason, changed_at)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::uuid[], $5::text[], $6::text[],
        $7::text[], $8::integer[], $9::timestamptz[], $10::timestamptz[], $11::text[], $12::text[],
        $13::timestamptz[])
"""

_TAKE_BACK = """
    UPDATE reminders AS r SET state = 'cancelled', due_at = NULL, reason = s.reason,
        changed_at = s.at
    FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::timestamptz[])
        AS s (interaction_id, version, reason, at)
    WHERE r.interaction_id = s.interaction_id AND r.interaction_version < s.version
      AND r.state = 'planned'
    RETURNING r.reminder_id, r.client_id, r.interaction_id, r.interaction_version
"""

# A message that no worker has in hand right now; one that is being sent cannot be held back.
_TAKE_BACK_QUEUED = """
    WITH stopped AS (
        UPDATE deliveries AS d SET state = 'cancelled', due_at = NULL, address = NULL,
            reason = s.reason, settled_at = s.at
        FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::timestamptz[])
            AS s (interaction_id, version, reason, at)
        WHERE d.interaction_id = s.interaction_id AND d.interaction_version < s.version
          AND d.state = 'queued'
        RETURNING d.reminder_id, s.reason, s.at)
    UPDATE reminders AS r SET state = 'cancelled', reason = stopped.reason,
        changed_at = stopped.at
    FROM stopped WHERE r.reminder_id = stopped.reminder_id
    RETURNING r.reminder_id, r.client_id, r.interaction_id, r.interaction_version
"""


class PlannedStage(NamedTuple):
    """A row of `reminders`, its members in the order of the statement."""

    reminder_id: UUID
    interaction_id: UUID
    interaction_version: int
    client_id: UUID
    stage: str
    channel: str
    template: str
    policy_version: int
    planned_for: datetime
    due_at: datetime | None
    state: str
    reason: str | None
    changed_at: datetime


async def plan_reminders(events: Sequence[InteractionPlanned], tx: Connection) -> None:
    """Plan the reminders of new meetings."""
    await _follow(tx, [standing(event) for event in events])


async def move_reminders(events: Sequence[InteractionMoved], tx: Connection) -> None:
    """Take the reminders of the old time back and plan those of the new one."""
    await _follow(tx, [standing(event) for event in events])


async def cancel_reminders(events: Sequence[InteractionCancelled], tx: Connection) -> None:
    """Take the reminders back: the meeting will not happen."""
    await _follow(tx, [cancelled(event) for event in events])


async def drop_reminders_of_held(events: Sequence[InteractionHeld], tx: Connection) -> None:
    """Take what is left of the reminders back: the meeting has taken place."""
    await _follow(tx, [held(event) for event in events])


async def _follow(tx: Connection, told: Sequence[MeetingVersion]) -> None:
    policy = await policies.current(tx, ReminderPolicy)
    for distinct in one_of_each(told):
        newer = await adopt(tx, distinct)
        said: list[Event] = await _take_back(tx, newer)
        said += await _plan(tx, newer, policy)
        await outbox.add_all(tx, said)


async def _take_back(tx: Connection, newer: Sequence[MeetingVersion]) -> list[Event]:
    by_id = {one.interaction_id: one for one in newer}
    superseded = (
        [one.interaction_id for one in newer],
        [one.version for one in newer],
        [one.supersedes_because for one in newer],
        [one.cause.occurred_at for one in newer],
    )
    # Two statements, in this order: a reminder that a timer makes into a message meanwhile is
    # waited for by the first and found among the messages by the second.
    rows = await tx.fetch(_TAKE_BACK, *superseded)
    rows += await tx.fetch(_TAKE_BACK_QUEUED, *superseded)
    return [
        ReminderCancelled(
            reminder_id=row["reminder_id"],
            client_id=row["client_id"],
            interaction_id=row["interaction_id"],
            interaction_version=row["interaction_version"],
            reason=by_id[row["interaction_id"]].supersedes_because,
            occurred_at=by_id[row["interaction_id"]].cause.occurred_at,
        ).caused_by(by_id[row["interaction_id"]].cause)
        for row in rows
    ]


async def _plan(
    tx: Connection, newer: Sequence[MeetingVersion], policy: policies.Versioned[ReminderPolicy]
) -> list[Event]:
    """Plan each stage; returns reminder.scheduled of those that are not skipped."""
    made = [
        (meeting, _stage_of(meeting, meeting.starts_at, stage, policy.version))
        for meeting in newer
        if meeting.starts_at is not None and meeting.kind in policy.body.kinds
        for stage in policy.body.stages
    ]
    if made:
        await tx.execute(
            _PLAN, *(list(column) for column in zip(*(r for _, r in made), strict=True))
        )
    return [
        ReminderScheduled(
            reminder_id=reminder.reminder_id,
            client_id=reminder.client_id,
            interaction_id=reminder.interaction_id,
            interaction_version=reminder.interaction_version,
            stage=reminder.stage,
            channel=reminder.channel,
            due_at=reminder.due_at,
            occurred_at=meeting.cause.occurred_at,
        ).caused_by(meeting.cause)
        for meeting, reminder in made
        if reminder.due_at is not None
    ]


def _stage_of(
    meeting: MeetingVersion, starts_at: datetime, stage: Stage, policy_version: int
) -> PlannedStage:
    now = meeting.cause.occurred_at
    due_at = starts_at - timedelta(minutes=stage.minutes_before)
    passed = due_at <= now
    return PlannedStage(
        reminder_id=new_id(),
        interaction_id=meeting.interaction_id,
        interaction_version=meeting.version,
        client_id=meeting.client_id,
        stage=stage.code,
        channel=stage.channel,
        template=stage.template,
        policy_version=policy_version,
        planned_for=due_at,
        due_at=None if passed else due_at,
        state="skipped" if passed else "planned",
        reason=STAGE_PASSED if passed else None,
        changed_at=now,
    )
