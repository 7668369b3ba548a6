"""A lead comes in: it is written down, due to be offered at once.

Who gets it is decided by the clock's door (`offering.py`), with the time that it really is: a lead
that was heard late must not be offered with its claim window already over.
"""

from collections.abc import Sequence

from libs.shared.database import Connection
from libs.shared.events import LeadReceived
from libs.shared.policies import current
from services.routing.claim_window import in_working_time
from services.routing.policy import ClaimPolicy

_WRITE_DOWN = """
    INSERT INTO leads (lead_id, client_id, source, channel, owner_id, received_at, is_returning,
        region, city, phone_country, phone_region, domain, product, language, utm, amount_minor,
        currency, complexity, kind, interaction_id, alert_at, state, due_at)
    SELECT l.*, 'waiting', received_at
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::timestamptz[],
        $7::bool[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[],
        $14::text[], $15::jsonb[], $16::bigint[], $17::text[], $18::text[], $19::text[],
        $20::uuid[], $21::timestamptz[])
        AS l (lead_id, client_id, source, channel, owner_id, received_at, is_returning, region,
        city, phone_country, phone_region, domain, product, language, utm, amount_minor, currency,
        complexity, kind, interaction_id, alert_at)
    ON CONFLICT (lead_id) DO NOTHING
"""


async def take_in_leads(events: Sequence[LeadReceived], tx: Connection) -> None:
    """Write leads down; one that is known already stays as it is."""
    claims = (await current(tx, ClaimPolicy)).body
    minutes = claims.alert_minutes
    rows = [
        (
            *(e.lead_id, e.client_id, e.source, e.channel, e.owner_id, e.occurred_at),
            *(e.is_returning, e.region, e.city, e.phone_country, e.phone_region, e.domain),
            *(e.product, e.language, e.utm or None, e.amount_minor, e.currency, e.complexity),
            *(e.kind, e.interaction_id),
            in_working_time(claims, e.occurred_at, minutes) if minutes else None,
        )
        for e in events
    ]
    await tx.execute(_WRITE_DOWN, *(list(column) for column in zip(*rows, strict=True)))
