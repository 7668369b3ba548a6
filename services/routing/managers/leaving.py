"""Somebody leaves: everything they hold goes to others at once, in one transaction.

Either by the rules, as if it had just come in, or to colleagues who are named, in turn.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import cycle
from uuid import UUID

from libs.shared import outbox
from libs.shared.database import Connection
from libs.shared.events import Event, LeadAssigned, LeadReleased
from services.routing.holding import held_otherwise

_HELD = """
    SELECT lead_id, client_id, epoch, state FROM leads
    WHERE manager_id = $1 AND state IN ('offered', 'claimed')
    ORDER BY received_at, lead_id FOR UPDATE
"""
_END = """
    UPDATE offers SET ended_at = $3, ended_how = 'superseded', ended_because = $4
    FROM unnest($1::uuid[], $2::int[]) AS o (lead_id, epoch)
    WHERE offers.lead_id = o.lead_id AND offers.epoch = o.epoch AND ended_at IS NULL
"""
_TO_RULES = """
    UPDATE leads SET state = 'waiting', manager_id = NULL, claimed_at = NULL, due_at = $2,
        asked = asked || $3::uuid
    WHERE lead_id = ANY($1::uuid[])
"""
_TO_NAMED = """
    UPDATE leads SET state = 'offered', manager_id = n.manager_id, epoch = epoch + 1,
        claimed_at = NULL, due_at = $3, hops = hops + 1
    FROM unnest($1::uuid[], $2::uuid[]) AS n (id, manager_id) WHERE lead_id = n.id
"""
_OFFERS = """
    INSERT INTO offers (lead_id, manager_id, epoch, why, offered_at, claim_until)
    SELECT id, manager_id, epoch, $4, $5, $6
    FROM unnest($1::uuid[], $2::uuid[], $3::int[]) AS n (id, manager_id, epoch)
"""


async def hand_over_everything(
    tx: Connection,
    manager_id: UUID,
    *,
    to: Sequence[UUID],
    reason: str,
    now: datetime,
    until: datetime,
) -> int:
    """Take every lead from a manager; how many.

    Args:
        to: Colleagues in turn; nobody: by the rules.
        until: By when the colleagues must claim.
    """
    held = await tx.fetch(_HELD, manager_id)
    if not held:
        return 0
    leads = [row["lead_id"] for row in held]
    await tx.execute(_END, leads, [row["epoch"] for row in held], now, reason)
    events: list[Event] = [
        LeadReleased(
            lead_id=row["lead_id"],
            client_id=row["client_id"],
            manager_id=manager_id,
            epoch=row["epoch"],
            reason=reason,
            occurred_at=now,
        )
        for row in held
    ]
    if to:
        given = [who for _, who in zip(held, cycle(to), strict=False)]
        epochs = [row["epoch"] + 1 for row in held]
        await tx.execute(_TO_NAMED, leads, given, until)
        await tx.execute(_OFFERS, leads, given, epochs, reason, now, until)
        events += [
            LeadAssigned(
                lead_id=row["lead_id"],
                client_id=row["client_id"],
                manager_id=who,
                epoch=epoch,
                claim_until=until,
                reason=reason,
                occurred_at=now,
            )
            for row, who, epoch in zip(held, given, epochs, strict=True)
        ]
        await held_otherwise(tx, now, lost=[manager_id] * len(held), got=given)
    else:
        await tx.execute(_TO_RULES, leads, now, manager_id)
        await held_otherwise(tx, now, lost=[manager_id] * len(held))
    await outbox.add_all(tx, events)
    return len(held)
