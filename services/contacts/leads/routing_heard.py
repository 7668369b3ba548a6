"""Where a lead is, as routing tells it; and who takes a lead takes a client whom nobody had.

Every offer of a lead has an epoch, and within it only goes forward: assigned, claimed, ended,
escalated, closed. Whatever is older than what is known already changes nothing.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias
from uuid import UUID

from libs.shared import outbox
from libs.shared.database import Connection
from libs.shared.events import (
    ClientChanged,
    LeadAssigned,
    LeadClaimed,
    LeadClosed,
    LeadConverted,
    LeadEscalated,
    LeadReleased,
    LeadUnclaimed,
)
from services.contacts.clients.models import card_of

Told: TypeAlias = (
    LeadAssigned
    | LeadClaimed
    | LeadUnclaimed
    | LeadReleased
    | LeadEscalated
    | LeadConverted
    | LeadClosed
)

ASSIGNED, CLAIMED, ENDED, ESCALATED, CONVERTED, CLOSED = 1, 2, 3, 4, 5, 6
_STATES = {
    ASSIGNED: "assigned",
    CLAIMED: "claimed",
    ENDED: "received",
    ESCALATED: "waiting",
    CONVERTED: "converted",
    CLOSED: "closed",
}

_STORE = """
    UPDATE leads SET state = $4, step = $5, epoch = told.epoch, manager_id = told.manager
    FROM unnest($1::uuid[], $2::integer[], $3::uuid[]) AS told (lead, epoch, manager)
    WHERE leads.id = told.lead AND (leads.epoch, leads.step) < (told.epoch, $5)
    RETURNING leads.id
"""
_OWN = """
    UPDATE clients SET owner_id = taken.manager, version = version + 1, changed_at = taken.at
    FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS taken (client, manager, at)
    WHERE clients.id = taken.client AND owner_id IS NULL AND archived_at IS NULL
    RETURNING clients.*
"""


async def note_assigned_leads(events: Sequence[LeadAssigned], tx: Connection) -> None:
    """The lead is offered to a manager."""
    await _note(tx, events, ASSIGNED)


async def note_claimed_leads(events: Sequence[LeadClaimed], tx: Connection) -> None:
    """The manager has the lead, and the client if nobody had them."""
    fresh = await _note(tx, events, CLAIMED)
    first: dict[UUID, LeadClaimed] = {}
    for event in events:
        if event.lead_id in fresh:
            first.setdefault(event.client_id, event)
    # In the order of ids: two workers with the same clients would otherwise deadlock.
    taken = [first[client_id] for client_id in sorted(first)]
    rows = await tx.fetch(
        _OWN,
        [event.client_id for event in taken],
        [event.manager_id for event in taken],
        [event.occurred_at for event in taken],
    )
    await outbox.add_all(tx, [_owned(_Card(row), first[row["id"]]) for row in rows])


async def note_unclaimed_leads(events: Sequence[LeadUnclaimed], tx: Connection) -> None:
    """The offer has lapsed."""
    await _note(tx, events, ENDED)


async def note_released_leads(events: Sequence[LeadReleased], tx: Connection) -> None:
    """The manager has given the lead back."""
    await _note(tx, events, ENDED)


async def note_escalated_leads(events: Sequence[LeadEscalated], tx: Connection) -> None:
    """The lead waits in the common queue."""
    await _note(tx, events, ESCALATED)


async def note_converted_leads(events: Sequence[LeadConverted], tx: Connection) -> None:
    """The manager made a deal of the lead."""
    await _note(tx, events, CONVERTED)


async def note_closed_leads(events: Sequence[LeadClosed], tx: Connection) -> None:
    """The lead came to nothing."""
    await _note(tx, events, CLOSED)


async def _note(tx: Connection, events: Sequence[Told], step: int) -> set[UUID]:
    """Store the newest of each lead; the leads for which it was news."""
    newest: dict[UUID, Told] = {}
    for event in events:
        known = newest.get(event.lead_id)
        if known is None or known.epoch < event.epoch:
            newest[event.lead_id] = event
    told = [newest[lead_id] for lead_id in sorted(newest)]
    holds = step in (ASSIGNED, CLAIMED, CONVERTED, CLOSED)
    rows = await tx.fetch(
        _STORE,
        [event.lead_id for event in told],
        [event.epoch for event in told],
        [getattr(event, "manager_id", None) if holds else None for event in told],
        _STATES[step],
        step,
    )
    return {row["id"] for row in rows}


class _Card:
    """A row with its columns as members, as `card_of` wants them."""

    def __init__(self, row: Any) -> None:
        self.__dict__.update(row)


def _owned(card: Any, claim: LeadClaimed) -> ClientChanged:
    return ClientChanged(
        client_id=card.id,
        version=card.version,
        card=card_of(card),
        changed=["owner_id"],
        occurred_at=claim.occurred_at,
    ).caused_by(claim)
