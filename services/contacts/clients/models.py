"""Tables of client cards. Creating goes by SQL of its own; all else through the ORM."""

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from libs.shared.errors import Conflict, NotFound
from libs.shared.events import ClientArchived, ClientCard, ClientChanged, ClientRestored
from services.contacts.tables import Base

Instant = TIMESTAMP(timezone=True)


class ClientNotFound(NotFound):
    """There is no client with this id."""

    code = "client-not-found"
    ru = "Такого клиента нет."


class ClientIsArchived(Conflict):
    """The card is archived: it can be read and restored, not changed."""

    code = "client-archived"
    ru = "Карточка в архиве: её можно читать и восстановить, но не менять."


class ClientNotArchived(Conflict):
    """The card is not archived, so there is nothing to restore."""

    code = "client-not-archived"
    ru = "Карточка не в архиве, восстанавливать нечего."


class Client(Base):
    """A client card."""

    __tablename__ = "clients"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int]
    kind: Mapped[str]  # person, sole_proprietor, legal_entity
    full_name: Mapped[str]
    short_name: Mapped[str | None]
    name_search: Mapped[str]
    owner_id: Mapped[UUID | None]
    status: Mapped[str]  # lead, active, paused, former
    phones: Mapped[list[str]] = mapped_column(ARRAY(Text))
    email: Mapped[str | None]
    email_search: Mapped[str | None]
    messengers: Mapped[dict[str, str]] = mapped_column(JSONB)
    address: Mapped[dict[str, str]] = mapped_column(JSONB)
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text))
    note: Mapped[str | None]
    source: Mapped[str | None]
    external_id: Mapped[str | None]
    birthday: Mapped[date | None]
    language: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(Instant)
    changed_at: Mapped[datetime] = mapped_column(Instant)
    archived_at: Mapped[datetime | None] = mapped_column(Instant)
    archive_reason: Mapped[str | None]

    def demand_in_use(self) -> None:
        """Check that the card may be changed.

        Raises:
            ClientIsArchived: It may not.
        """
        if self.archived_at is not None:
            raise ClientIsArchived(client_id=str(self.id))

    def change(self, values: dict[str, Any], *, at: datetime) -> ClientChanged | None:
        """Take over new values by column; None when none of them is new.

        Raises:
            ClientIsArchived: The card is put away.
        """
        self.demand_in_use()
        changed = [name for name, value in values.items() if getattr(self, name) != value]
        if not changed:
            return None
        for name in changed:
            setattr(self, name, values[name])
        self.version += 1
        self.changed_at = at
        return ClientChanged(
            client_id=self.id,
            version=self.version,
            card=card_of(self),
            changed=_told(changed),
            occurred_at=at,
        )

    def archive(self, *, reason: str, at: datetime) -> ClientArchived:
        """Put the card away.

        Raises:
            ClientIsArchived: It is put away already.
        """
        self.demand_in_use()
        self.archived_at, self.archive_reason = at, reason
        self.version += 1
        self.changed_at = at
        return ClientArchived(
            client_id=self.id, version=self.version, reason=reason, occurred_at=at
        )

    def restore(self, *, at: datetime) -> ClientRestored:
        """Take the card into use again.

        Raises:
            ClientNotArchived: It is in use.
        """
        if self.archived_at is None:
            raise ClientNotArchived(client_id=str(self.id))
        self.archived_at = self.archive_reason = None
        self.version += 1
        self.changed_at = at
        return ClientRestored(client_id=self.id, version=self.version, occurred_at=at)


class ClientSegment(Base):
    """The segment that scoring told last; `segment` is null once no purchase is left."""

    __tablename__ = "client_segments"

    client_id: Mapped[UUID] = mapped_column(primary_key=True)
    segment: Mapped[str | None]
    seq: Mapped[int]
    changed_at: Mapped[datetime] = mapped_column(Instant)


def card_of(client: Any) -> ClientCard:
    """What events tell of a card; takes a `Client`, a row of the table or a `NewCard`."""
    return ClientCard(
        kind=client.kind,
        full_name=client.full_name,
        short_name=client.short_name,
        status=client.status,
        owner_id=client.owner_id,
        phones=list(client.phones),
        email=client.email,
        messengers=client.messengers,
        city=client.address.get("city"),
        language=client.language,
        tags=list(client.tags),
    )


def _told(columns: Iterable[str]) -> list[str]:
    """Names of changed columns as the API knows them; those for searching are nobody's business."""
    return [name for name in columns if not name.endswith("_search")]
