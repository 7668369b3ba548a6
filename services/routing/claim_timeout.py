"""What happens when nobody claims a lead in time: it goes to the next manager.

The lapse and the next offer are one transaction: a crash leaves the old offer or the new one, never
neither. A window closes at `due_at <= now`, so a claim made at that very instant is late. Claim and
timeout fight for the lead's row lock, and exactly one wins. Any number of workers may sweep.
"""

from datetime import datetime

from libs.shared import failpoints
from libs.shared.database import Connection
from libs.shared.events import LeadUnclaimed
from libs.shared.timers import Timer
from services.routing.deciding import FACTS
from services.routing.desk import DESK
from services.routing.offering import WITH_ITS_OFFER, offer_these

BATCH = 500

_LAPSE = f"""
    WITH lapsed AS MATERIALIZED (
        SELECT lead_id, manager_id AS silent, l.epoch FROM leads AS l {WITH_ITS_OFFER}
        WHERE state = 'offered' AND due_at <= $1 AND seen.epoch = l.epoch
        ORDER BY due_at, lead_id LIMIT $2 FOR UPDATE OF l SKIP LOCKED
    ), moved AS (
        UPDATE leads AS l SET state = 'waiting', due_at = $1, manager_id = NULL,
            asked = l.asked || lapsed.silent
        FROM lapsed LEFT JOIN LATERAL (SELECT segment FROM client_segments AS c, leads
            WHERE leads.lead_id = lapsed.lead_id AND c.client_id = leads.client_id) AS s ON true
        WHERE l.lead_id = lapsed.lead_id RETURNING {FACTS}, silent
    ), ended AS (
        UPDATE offers SET ended_at = $1, ended_how = 'lapsed'
        FROM lapsed WHERE offers.lead_id = lapsed.lead_id AND offers.epoch = lapsed.epoch
    ), desk AS ({DESK.format(where="WHERE EXISTS (SELECT FROM lapsed)")})
    SELECT * FROM moved CROSS JOIN desk ORDER BY received_at, lead_id
"""


async def reassign_lapsed_leads(tx: Connection, now: datetime) -> int:
    """Offer every lead whose window has closed to its next manager; at most `BATCH`."""
    lapsed = await tx.fetch(_LAPSE, now, BATCH)
    if not lapsed:
        return 0
    failpoints.reach("claim_timeout.lapsed")
    said = [
        LeadUnclaimed(
            lead_id=row["lead_id"],
            client_id=row["client_id"],
            manager_id=row["silent"],
            epoch=row["epoch"],
            occurred_at=now,
        )
        for row in lapsed
    ]
    await offer_these(tx, lapsed, now, freed=[row["silent"] for row in lapsed], said=said)
    return len(lapsed)


CLAIM_TIMEOUT = Timer(
    "claim_timeout",
    "SELECT min(due_at) FROM leads WHERE state = 'offered'",
    reassign_lapsed_leads,
    is_patient=True,  # a window is open for a minute at least
)
