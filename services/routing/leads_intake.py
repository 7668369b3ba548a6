"""A lead comes in: it is written down, due to be offered at once.

Who gets it is decided by the clock's door (`offering.py`), with the time that it really is: a lead
that was heard late must not be offered with its claim window already over.
"""

from collections.abc import Sequence

from libs.shared.database import Connection
from libs.shared.events import LeadReceived

_WRITE_DOWN = """
    INSERT INTO leads (lead_id, client_id, source, channel, owner_id, state, received_at, due_at)
    SELECT lead_id, client_id, source, channel, owner_id, 'waiting', at, at
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::timestamptz[])
        AS l (lead_id, client_id, source, channel, owner_id, at)
    ON CONFLICT (lead_id) DO NOTHING
"""


async def take_in_leads(events: Sequence[LeadReceived], tx: Connection) -> None:
    """Write leads down; one that is known already stays as it is."""
    await tx.execute(
        _WRITE_DOWN,
        [e.lead_id for e in events],
        [e.client_id for e in events],
        [e.source for e in events],
        [e.channel for e in events],
        [e.owner_id for e in events],
        [e.occurred_at for e in events],
    )
