"""The first clock of a lead: when nobody has taken it within minutes, somebody is told.

It runs in the policy's working time from when the lead came in, and strikes once. The lead goes on
as it is; moving it to the next manager is the second clock's (`claim_timeout.py`).
"""

from datetime import datetime

from libs.shared import outbox
from libs.shared.database import Connection
from libs.shared.events import LeadUnanswered
from libs.shared.timers import Timer, due_column

BATCH = 500

_STRIKE = """
    UPDATE leads SET alert_at = NULL, alerted_at = $1
    WHERE lead_id = ANY(ARRAY(SELECT lead_id FROM leads WHERE alert_at <= $1
        ORDER BY alert_at, lead_id LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING lead_id, client_id, manager_id, epoch, received_at, state
"""


async def alert_unanswered_leads(tx: Connection, now: datetime) -> int:
    """Tell of every lead that nobody has taken in time; at most `BATCH`."""
    struck = await tx.fetch(_STRIKE, now, BATCH)
    await outbox.add_all(
        tx,
        [
            LeadUnanswered(
                lead_id=row["lead_id"],
                client_id=row["client_id"],
                manager_id=row["manager_id"],
                epoch=row["epoch"],
                received_at=row["received_at"],
                occurred_at=now,
            )
            for row in struck
            if row["state"] in ("waiting", "offered", "queued")
        ],
    )
    return len(struck)


UNANSWERED = Timer(
    "unanswered", due_column("leads", "alert_at"), alert_unanswered_leads, is_patient=True
)
