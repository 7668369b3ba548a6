"""Taking a lead in: it finds its client by phone or e-mail, or becomes a new card.

The oldest card in use wins. A card that was put away is taken into use again: whoever asks for
contact is a client. Two leads of one person at once wait for each other, so there is one card.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from libs.shared import outbox
from libs.shared.database import Connection
from libs.shared.events import ClientRestored, Event, LeadReceived
from libs.shared.ids import new_id
from services.contacts.clients import emails, phones
from services.contacts.clients.card import NewCard
from services.contacts.clients.creation import COLUMNS, created
from services.contacts.clients.names import name_key
from services.contacts.leads import phone_places
from services.contacts.leads.marks import marks_of

_LOCK = "SELECT pg_advisory_xact_lock(hashtext('lead'), hashtext($1))"
_FIND = """
    SELECT id, owner_id, archived_at FROM clients
    WHERE phones && $1::text[] OR email_search = $2
    ORDER BY archived_at IS NOT NULL, id LIMIT 1 FOR NO KEY UPDATE
"""
_RESTORE = """
    UPDATE clients SET archived_at = NULL, archive_reason = NULL, version = version + 1,
        changed_at = $2
    WHERE id = $1 RETURNING version
"""
_CREATE = (
    f"INSERT INTO clients ({', '.join(COLUMNS)})"
    f" VALUES ({', '.join(f'${number}' for number in range(1, len(COLUMNS) + 1))})"
)
_INSERT = """
    INSERT INTO leads (id, client_id, source, channel, name, phones, email, note, product, city,
        language, utm, consents, is_returning, received_at, webhook_request_id, region, domain,
        amount_minor, currency, complexity, kind, interaction_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
        $20, $21, $22, $23)
"""


# No event says it: nobody of ours has spoken with the client.
_TALK = """
    INSERT INTO interactions (id, client_id, kind, state, direction, at, topic, outcome, source,
        recorded_by, created_at)
    VALUES ($1, $2, 'message', 'recorded', 'incoming', $3, $4, $5, $6, 'bot', $3)
"""


@dataclass(frozen=True, slots=True)
class Talk:
    """What a bot and the client have said before the bot handed over, and why it did."""

    reason: str
    text: str


@dataclass(slots=True)
class Asked:
    """What somebody who asks for contact has told; phones are E.164, the e-mail normalised."""

    source: str
    channel: str
    name: str | None = None
    phones: list[str] = field(default_factory=list)
    email: str | None = None
    note: str | None = None
    product: str | None = None
    city: str | None = None
    language: str | None = None
    utm: dict[str, str] = field(default_factory=dict)
    consents: dict[str, bool] = field(default_factory=dict)
    webhook_request_id: int | None = None
    region: str | None = None
    domain: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    complexity: str | None = None
    talk: Talk | None = None


async def take_in(tx: Connection, asked: Asked, *, now: datetime) -> UUID:
    """Store a lead, its client if new, and say lead.received; the lead's id."""
    email_search = emails.search_key(asked.email) if asked.email else None
    for key in sorted({*asked.phones, *([email_search] if email_search else [])}):
        await tx.execute(_LOCK, key)
    client = await tx.fetchrow(_FIND, asked.phones, email_search)
    events: list[Event] = []
    if client is None:
        card = _card(asked, email_search, now)
        await tx.execute(_CREATE, *(getattr(card, name) for name in COLUMNS))
        events.append(created(card))
        client_id, owner_id = card.id, None
    else:
        client_id, owner_id = client["id"], client["owner_id"]
        events += await _restored(tx, client, now)
    lead_id, talk_id = new_id(), None
    if asked.talk is not None:
        talk_id = new_id()
        told = (asked.talk.reason, asked.talk.text, asked.source)
        await tx.execute(_TALK, talk_id, client_id, now, *told)
    place = phone_places.place_of(asked.phones)
    values = _values(lead_id, client_id, asked, client is not None, now)
    kind = "request" if talk_id is None else "handoff"
    await tx.execute(_INSERT, *values, kind, talk_id)
    events.append(
        LeadReceived(
            lead_id=lead_id,
            client_id=client_id,
            source=asked.source,
            channel=asked.channel,
            is_returning=client is not None,
            city=asked.city,
            language=asked.language,
            product=asked.product,
            owner_id=owner_id,
            region=asked.region,
            domain=asked.domain,
            phone_country=place.country,
            phone_region=place.region,
            utm=marks_of(asked.utm),
            amount_minor=asked.amount_minor,
            currency=asked.currency,
            complexity=asked.complexity,
            kind=kind,
            interaction_id=talk_id,
            occurred_at=now,
        )
    )
    await outbox.add_all(tx, events)
    return lead_id


def _values(
    lead_id: UUID, client_id: UUID, asked: Asked, is_returning: bool, now: datetime
) -> tuple[Any, ...]:
    return (
        *(lead_id, client_id, asked.source, asked.channel, asked.name, asked.phones, asked.email),
        *(asked.note, asked.product, asked.city, asked.language, asked.utm, asked.consents),
        *(is_returning, now, asked.webhook_request_id, asked.region, asked.domain),
        *(asked.amount_minor, asked.currency, asked.complexity),
    )


async def _restored(tx: Connection, client: asyncpg.Record, now: datetime) -> list[Event]:
    if client["archived_at"] is None:
        return []
    version = await tx.fetchval(_RESTORE, client["id"], now)
    return [ClientRestored(client_id=client["id"], version=version, occurred_at=now)]


def _card(asked: Asked, email_search: str | None, now: datetime) -> NewCard:
    shown = phones.display(asked.phones[0]) if asked.phones else asked.email
    name = asked.name or shown or "Без имени"
    return NewCard(
        id=new_id(),
        kind="person",
        full_name=name,
        short_name=None,
        name_search=name_key(name),
        owner_id=None,
        status="lead",
        phones=asked.phones,
        email=asked.email,
        email_search=email_search,
        messengers={},
        address={"city": asked.city} if asked.city else {},
        tags=[],
        note=asked.note,
        source=asked.source,
        external_id=None,
        birthday=None,
        language=asked.language,
        created_at=now,
        changed_at=now,
    )
