"""What notifications knows of a client: the newest card that contacts told of.

Only what a message needs is kept. A card that is older than the one we have is dropped, so
repeats and disorder change nothing.
"""

from collections.abc import Sequence

from libs.shared.database import Connection, dumps
from libs.shared.events import ClientChanged, ClientCreated

_KEEP = """
    INSERT INTO clients (client_id, version, name, email, phone, messengers, language)
    SELECT id, version, name, email, phone, messengers::jsonb, language
    FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[],
        $7::text[]) AS t (id, version, name, email, phone, messengers, language)
    ORDER BY id
    ON CONFLICT (client_id) DO UPDATE SET version = excluded.version, name = excluded.name,
        email = excluded.email, phone = excluded.phone, messengers = excluded.messengers,
        language = excluded.language
    WHERE clients.version < excluded.version
"""


async def keep_cards(
    events: Sequence[ClientCreated] | Sequence[ClientChanged], tx: Connection
) -> None:
    """Remember the cards, thousands in one statement."""
    newest: dict[str, ClientCreated | ClientChanged] = {}
    for event in events:
        known = newest.get(event.key)
        if known is None or known.version < event.version:
            newest[event.key] = event
    cards = [(event.client_id, event.version, event.card) for event in newest.values()]
    await tx.execute(
        _KEEP,
        [client_id for client_id, _, _ in cards],
        [version for _, version, _ in cards],
        [card.full_name for _, _, card in cards],
        [card.email for _, _, card in cards],
        [card.phones[0] if card.phones else None for _, _, card in cards],
        [dumps(card.messengers) for _, _, card in cards],
        [card.language for _, _, card in cards],
    )
