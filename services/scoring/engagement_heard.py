"""What clients answer to: how they asked for what, messages they opened, pages they looked at.

Heard twice, late or in another order it comes to the same.
"""

from collections.abc import Sequence

from libs.shared.database import Connection
from libs.shared.events import LeadReceived, MessageOpened, MessageSent, PageViewed
from services.scoring.touches.changes import note_changed_clients

_ASKED = """
    INSERT INTO asked_for
    SELECT DISTINCT * FROM unnest($1::uuid[], $2::text[], $3::text[]) AS t (client_id, kind, value)
    ORDER BY client_id, kind, value ON CONFLICT DO NOTHING RETURNING client_id
"""
_SENT = """
    INSERT INTO messages AS m (client_id, message_id, sent_at)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS t (client_id, message_id, at)
    ORDER BY client_id, message_id
    ON CONFLICT (client_id, message_id) DO UPDATE SET sent_at = excluded.sent_at
    WHERE m.sent_at IS NULL
"""
_OPENED = """
    INSERT INTO messages AS m (client_id, message_id, opened_at)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS t (client_id, message_id, at)
    ORDER BY client_id, message_id
    ON CONFLICT (client_id, message_id) DO UPDATE SET opened_at = excluded.opened_at
    WHERE m.opened_at IS NULL
"""

_VIEWED = """
    INSERT INTO client_pages AS p (client_id, page, last_viewed_at)
    SELECT client_id, page, max(at)
    FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS t (client_id, page, at)
    GROUP BY client_id, page ORDER BY client_id, page
    ON CONFLICT (client_id, page) DO UPDATE SET last_viewed_at = excluded.last_viewed_at
    WHERE p.last_viewed_at < excluded.last_viewed_at
    RETURNING client_id
"""


async def note_what_was_asked_for(leads: Sequence[LeadReceived], tx: Connection) -> None:
    """Remember by which channels and sources a client came, and the products they asked for."""
    told = [
        (lead.client_id, kind, value.casefold())
        for lead in leads
        for kind, value in (
            ("channel", lead.channel),
            ("source", lead.source),
            ("product", lead.product),
        )
        if value
    ]
    new = await tx.fetch(_ASKED, *map(list, zip(*told, strict=True)))
    await note_changed_clients(tx, {row["client_id"] for row in new})


async def note_sent_messages(events: Sequence[MessageSent], tx: Connection) -> None:
    """Count what a client was sent."""
    await _note(tx, _SENT, [(e.client_id, e.message_id, e.occurred_at) for e in events])


async def note_opened_messages(events: Sequence[MessageOpened], tx: Connection) -> None:
    """Count what a client has opened."""
    await _note(tx, _OPENED, [(e.client_id, e.message_id, e.opened_at) for e in events])


async def note_viewed_pages(events: Sequence[PageViewed], tx: Connection) -> None:
    """Remember when a client last looked at a page."""
    told = [(event.client_id, event.site + event.page, event.viewed_at) for event in events]
    new = await tx.fetch(_VIEWED, *map(list, zip(*told, strict=True)))
    await note_changed_clients(tx, {row["client_id"] for row in new})


async def _note(tx: Connection, statement: str, told: Sequence[tuple[object, ...]]) -> None:
    once = list({row[1]: row for row in reversed(told)}.values())  # the first of each message
    await tx.execute(statement, *map(list, zip(*once, strict=True)))
    await note_changed_clients(tx, {row[0] for row in once})  # type: ignore[misc]  # a UUID
