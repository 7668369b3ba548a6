"""Reviews of clients, kept for what they say of the channels the clients came by.

Source: requirement S-22.
"""

from collections.abc import Sequence

from libs.shared.database import Connection
from libs.shared.events import InteractionRecorded

REVIEW = "review"

_KEEP = """
    INSERT INTO reviews (interaction_id, client_id, rating, given_at)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::timestamptz[])
    ON CONFLICT (interaction_id) DO NOTHING
"""


async def keep_reviews(events: Sequence[InteractionRecorded], tx: Connection) -> None:
    """Keep the reviews among what happened."""
    told = [
        (e.interaction_id, e.client_id, e.rating, e.happened_at) for e in events if e.kind == REVIEW
    ]
    if told:
        await tx.execute(_KEEP, *map(list, zip(*told, strict=True)))
