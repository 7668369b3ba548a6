"""A complaint in the timeline is a lead: somebody gets it at once, with a clock, and answers.

It is written in the transaction that records the complaint. Complaints of long ago, as a history
brings them, are no work for anybody.

Source: requirements R-11, C-38.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from libs.shared import outbox
from libs.shared.database import Connection
from libs.shared.events import LeadReceived
from libs.shared.ids import new_id
from libs.shared.policies import current
from services.contacts.interactions.models import Interaction
from services.contacts.policies import ComplaintPolicy

SOURCE = "complaint"

_MAKE = """
    INSERT INTO leads (id, client_id, source, channel, name, phones, email, note, city, language,
        utm, consents, is_returning, received_at, kind, interaction_id)
    SELECT made.id, c.id, $3, 'api', c.full_name, c.phones, c.email, concat_ws(E'\\n',
            nullif(i.topic, ''), i.outcome), c.address ->> 'city', c.language, '{}', '{}', true, $4,
        'complaint', i.id
    FROM unnest($1::uuid[], $2::uuid[]) AS made (id, interaction_id)
    JOIN interactions AS i ON i.id = made.interaction_id JOIN clients AS c ON c.id = i.client_id
    RETURNING id, client_id, city, language, interaction_id,
        (SELECT owner_id FROM clients WHERE clients.id = leads.client_id) AS owner_id
"""


async def give_complaints(
    tx: Connection, recorded: Iterable[Interaction], *, now: datetime
) -> None:
    """Make leads of the complaints among interactions that were just recorded."""
    complaints = [one for one in recorded if one.kind == "complaint"]
    if not complaints:
        return
    policy = (await current(tx, ComplaintPolicy)).body
    oldest = now - timedelta(days=policy.not_older_than_days)
    fresh = [one.id for one in complaints if policy.become_leads and one.at >= oldest]
    if not fresh:
        return
    rows = await tx.fetch(_MAKE, [new_id() for _ in fresh], fresh, SOURCE, now)
    await outbox.add_all(
        tx,
        [
            LeadReceived(
                lead_id=row["id"],
                client_id=row["client_id"],
                source=SOURCE,
                channel="api",
                is_returning=True,
                city=row["city"],
                language=row["language"],
                owner_id=row["owner_id"],
                kind="complaint",
                interaction_id=row["interaction_id"],
                occurred_at=now,
            )
            for row in rows
        ],
    )
