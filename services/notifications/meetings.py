"""Planned meetings and calls as contacts tells of them; the version decides.

Each meeting is known by its newest version. Whatever comes with an older or the same version
changes nothing: a plan that arrives after its cancellation plans nothing, an old move does not
undo a new one. What follows for the reminders is in `reminders.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs.shared.database import Connection
from libs.shared.events import (
    Event,
    InteractionCancelled,
    InteractionHeld,
    InteractionMoved,
    InteractionPlanned,
)

_ADOPT = """
    INSERT INTO meetings
        (interaction_id, client_id, version, state, kind, starts_at, topic, manager_id)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::text[],
        $6::timestamptz[], $7::text[], $8::uuid[]) AS t (id) ORDER BY id
    ON CONFLICT (interaction_id) DO UPDATE SET
        version = excluded.version,
        state = excluded.state,
        kind = coalesce(excluded.kind, meetings.kind),
        starts_at = coalesce(excluded.starts_at, meetings.starts_at),
        topic = CASE WHEN excluded.state = 'planned' THEN excluded.topic ELSE meetings.topic END,
        manager_id = coalesce(excluded.manager_id, meetings.manager_id)
    WHERE meetings.version < excluded.version
    RETURNING interaction_id
"""


@dataclass(frozen=True, slots=True)
class MeetingVersion:
    """What one event says of a meeting.

    Attributes:
        starts_at: None when it will not happen (again).
        supersedes_because: Why the reminders of older versions are taken back.
    """

    interaction_id: UUID
    client_id: UUID
    version: int
    state: str
    kind: str | None
    starts_at: datetime | None
    topic: str
    manager_id: UUID | None
    supersedes_because: str
    cause: Event


def standing(event: InteractionPlanned | InteractionMoved) -> MeetingVersion:
    """What a plan or a move says: the meeting stands, at this time."""
    return MeetingVersion(
        interaction_id=event.interaction_id,
        client_id=event.client_id,
        version=event.version,
        state="planned",
        kind=event.kind,
        starts_at=event.starts_at,
        topic=event.topic_text,
        manager_id=event.manager_id,
        supersedes_because="moved",
        cause=event,
    )


def cancelled(event: InteractionCancelled) -> MeetingVersion:
    """What a cancellation says."""
    return MeetingVersion(
        interaction_id=event.interaction_id,
        client_id=event.client_id,
        version=event.version,
        state="cancelled",
        kind=None,
        starts_at=None,
        topic="",
        manager_id=None,
        supersedes_because="cancelled",
        cause=event,
    )


def held(event: InteractionHeld) -> MeetingVersion:
    """What the end of a meeting says."""
    return MeetingVersion(
        interaction_id=event.interaction_id,
        client_id=event.client_id,
        version=event.version,
        state="held",
        kind=event.kind,
        starts_at=None,
        topic="",
        manager_id=event.manager_id,
        supersedes_because="held",
        cause=event,
    )


def one_of_each(told: Sequence[MeetingVersion]) -> Iterator[list[MeetingVersion]]:
    """Rounds without a meeting twice: one statement cannot change a row two times.

    Two moves in a batch are followed one after the other, so that what is written does not depend
    on how events came in batches.
    """
    left = list(told)
    while left:
        first: dict[UUID, MeetingVersion] = {}
        for one in left:
            first.setdefault(one.interaction_id, one)
        yield list(first.values())
        left = [one for one in left if first[one.interaction_id] is not one]


async def adopt(tx: Connection, told: Sequence[MeetingVersion]) -> list[MeetingVersion]:
    """Keep those that are newer than what is known, and say which they were."""
    rows = await tx.fetch(
        _ADOPT,
        [one.interaction_id for one in told],
        [one.client_id for one in told],
        [one.version for one in told],
        [one.state for one in told],
        [one.kind for one in told],
        [one.starts_at for one in told],
        [one.topic for one in told],
        [one.manager_id for one in told],
    )
    newer = {row["interaction_id"] for row in rows}
    return [one for one in told if one.interaction_id in newer]
