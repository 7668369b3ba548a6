"""By which channel each client came: that of the first lead, whichever is heard first."""

from collections.abc import Sequence

from libs.shared.database import Connection
from libs.shared.events import LeadReceived

_KEEP = """
    INSERT INTO acquisitions AS a (client_id, channel, source, asked_at)
    SELECT DISTINCT ON (client_id) * FROM unnest($1::uuid[], $2::text[], $3::text[],
        $4::timestamptz[]) AS t (client_id, channel, source, asked_at)
    ORDER BY client_id, asked_at
    ON CONFLICT (client_id) DO UPDATE SET channel = excluded.channel, source = excluded.source,
        asked_at = excluded.asked_at
    WHERE excluded.asked_at < a.asked_at
"""


async def note_channels(leads: Sequence[LeadReceived], tx: Connection) -> None:
    """Remember where clients came from. A later lead changes nothing."""
    await tx.execute(
        _KEEP,
        [lead.client_id for lead in leads],
        [lead.channel for lead in leads],
        [lead.source for lead in leads],
        [lead.occurred_at for lead in leads],
    )
