"""What scoring knows of a client: whose they are, and what groups of clients are made by.

The newest card that contacts told of, without names, phones and addresses. A card that is older
than the one we have is dropped, so repeats and disorder change nothing.
"""

from collections.abc import Sequence
from uuid import UUID

from libs.shared.database import Connection
from libs.shared.events import ClientArchived, ClientChanged, ClientCreated, ClientRestored
from services.scoring.touches.changes import note_changed_clients

_KEEP = """
    INSERT INTO clients AS c (client_id, version, owner_id, kind, status, city, language, tags,
        created_at)
    SELECT id, version, owner_id, kind, status, city, language, tags::text[], created_at
    FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::text[], $5::text[], $6::text[],
        $7::text[], $8::text[], $9::timestamptz[])
        AS t (id, version, owner_id, kind, status, city, language, tags, created_at)
    ORDER BY id
    ON CONFLICT (client_id) DO UPDATE SET version = excluded.version,
        owner_id = excluded.owner_id, kind = excluded.kind, status = excluded.status,
        city = excluded.city, language = excluded.language, tags = excluded.tags,
        created_at = least(c.created_at, excluded.created_at)
    WHERE c.version < excluded.version
"""
# A card may be put away before its making was heard: what is known of it then is this alone.
_PUT_AWAY = """
    INSERT INTO clients AS c (client_id, version, is_archived)
    SELECT id, version, $3 FROM unnest($1::uuid[], $2::integer[]) AS t (id, version) ORDER BY id
    ON CONFLICT (client_id) DO UPDATE SET version = excluded.version,
        is_archived = excluded.is_archived
    WHERE c.version < excluded.version
"""


async def keep_cards(
    events: Sequence[ClientCreated] | Sequence[ClientChanged], tx: Connection
) -> None:
    """Remember the cards, thousands in one statement."""
    newest: dict[UUID, ClientCreated | ClientChanged] = {}
    for event in events:
        known = newest.get(event.client_id)
        if known is None or known.version < event.version:
            newest[event.client_id] = event
    told = list(newest.values())
    cards = [event.card for event in told]
    await tx.execute(
        _KEEP,
        [event.client_id for event in told],
        [event.version for event in told],
        [card.owner_id for card in cards],
        [card.kind for card in cards],
        [card.status for card in cards],
        [card.city for card in cards],
        [card.language for card in cards],
        [_as_array(card.tags) for card in cards],
        [event.occurred_at if isinstance(event, ClientCreated) else None for event in told],
    )
    await note_changed_clients(tx, list(newest))


async def put_away(events: Sequence[ClientArchived], tx: Connection) -> None:
    """Nobody is to call clients whose cards are archived."""
    await _mark(tx, {e.client_id: e.version for e in events}, is_archived=True)


async def take_back(events: Sequence[ClientRestored], tx: Connection) -> None:
    """Restored cards count again."""
    await _mark(tx, {e.client_id: e.version for e in events}, is_archived=False)


async def _mark(tx: Connection, versions: dict[UUID, int], *, is_archived: bool) -> None:
    await tx.execute(_PUT_AWAY, list(versions), list(versions.values()), is_archived)
    await note_changed_clients(tx, list(versions))


def _as_array(tags: Sequence[str]) -> str:
    """PostgreSQL's text of an array: an array of arrays of different lengths cannot be sent."""
    quoted = (tag.replace("\\", "\\\\").replace('"', '\\"') for tag in tags)
    return "{" + ",".join(f'"{tag}"' for tag in quoted) + "}"
