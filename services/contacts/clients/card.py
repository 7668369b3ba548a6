"""What may stand on a client card, and how it is told."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from libs.shared.errors import Invalid
from libs.shared.http import CalendarDay, Request, Text50, Text200, Text2000, Text20000
from libs.shared.ids import new_id
from services.contacts.clients import emails, phones
from services.contacts.clients.names import LEGAL_ENTITY, Kind, name_key, names_of

Status = Literal["lead", "active", "paused", "former"]
Messenger = Literal["telegram", "whatsapp", "instagram", "vk", "max", "viber"]
Phones = Annotated[list[Text200], Field(max_length=20)]
Tags = Annotated[list[Text50], Field(max_length=100)]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)]


class BirthdayInFuture(Invalid):
    """A birthday cannot lie in the future."""

    code = "birthday-in-future"
    ru = "Дата рождения не может быть в будущем."


class Address(BaseModel):
    """Where a client is."""

    model_config = Request.model_config

    postcode: Text50 | None = None
    country: Text200 | None = None
    city: Text200 | None = None
    line: Text200 | None = None


class CreateClient(Request):
    """A new card. The first phone is the primary one; any spelling is read."""

    kind: Kind = "person"
    name: Text200 | None = None
    full_name: Text200 | None = None
    short_name: Text200 | None = None
    owner_id: UUID | None = None
    status: Status = "lead"
    phones: Phones = Field(default_factory=list)
    email: Text200 | None = None
    messengers: dict[Messenger, Text200] = Field(default_factory=dict)
    address: Address | None = None
    tags: Tags = Field(default_factory=list)
    note: Text20000 | None = None
    source: Text50 | None = None
    external_id: Text200 | None = None
    birthday: CalendarDay | None = None
    language: Language | None = None


class ClientItem(CreateClient):
    """A card of a batch."""


class ChangeClient(Request):
    """What is to be changed; what is left out stays as it is, null takes away."""

    kind: Kind | None = None
    name: Text200 | None = None
    full_name: Text200 | None = None
    short_name: Text200 | None = None
    status: Status | None = None
    phones: Phones | None = None
    email: Text200 | None = None
    messengers: dict[Messenger, Text200] | None = None
    address: Address | None = None
    tags: Tags | None = None
    note: Text20000 | None = None
    birthday: CalendarDay | None = None
    language: Language | None = None


class ArchiveClient(Request):
    """Why the card is put away."""

    reason: Text2000


class PhoneView(BaseModel):
    """A number in E.164 and as it is shown."""

    number: str
    display: str


class SegmentView(BaseModel):
    """The segment as scoring told it; `seq` counts the client's moves."""

    name: str | None
    seq: int


class ClientView(BaseModel):
    """A client card. `name` is what everybody calls the client: the short name of a company."""

    id: UUID
    version: int
    kind: Kind
    name: str
    full_name: str | None
    short_name: str | None
    owner_id: UUID | None
    status: Status
    phones: list[PhoneView]
    email: str | None
    messengers: dict[str, str]
    address: dict[str, str]
    tags: list[str]
    note: str | None
    source: str | None
    external_id: str | None
    birthday: date | None
    language: str | None
    segment: SegmentView | None
    created_at: datetime
    changed_at: datetime
    archived_at: datetime | None
    archive_reason: str | None


class CreatedClientView(ClientView):
    """The new card, and cards that share a phone or the e-mail with it."""

    possible_duplicates: list[UUID]


@dataclass(slots=True)
class NewCard:
    """A card in the form in which it is stored; members are columns of the table."""

    id: UUID
    kind: str
    full_name: str
    short_name: str | None
    name_search: str
    owner_id: UUID | None
    status: str
    phones: list[str]
    email: str | None
    email_search: str | None
    messengers: dict[str, str]
    address: dict[str, str]
    tags: list[str]
    note: str | None
    source: str | None
    external_id: str | None
    birthday: date | None
    language: str | None
    created_at: datetime
    changed_at: datetime
    version: int = 1
    archived_at: datetime | None = None
    archive_reason: str | None = None


def new_card(given: CreateClient, *, region: str, now: datetime) -> NewCard:
    """The card that a request asks for.

    Args:
        region: Country of phone numbers that name none.

    Raises:
        Invalid: Names, phones, e-mail or birthday are not acceptable.
    """
    full_name, short_name = names_of(given.kind, given.name, given.full_name, given.short_name)
    email = emails.normalise(given.email) if given.email else None
    _demand_past(given.birthday, now)
    return NewCard(
        id=new_id(),
        kind=given.kind,
        full_name=full_name,
        short_name=short_name,
        name_search=name_key(full_name, short_name),
        owner_id=given.owner_id,
        status=given.status,
        phones=phones.all_numbers(given.phones, region) if given.phones else [],
        email=email,
        email_search=emails.search_key(email) if email else None,
        messengers={str(name): profile for name, profile in given.messengers.items()},
        address=given.address.model_dump(exclude_none=True) if given.address else {},
        tags=list(dict.fromkeys(given.tags)),
        note=given.note,
        source=given.source,
        external_id=given.external_id,
        birthday=given.birthday,
        language=given.language,
        created_at=now,
        changed_at=now,
    )


def changes_of(given: ChangeClient, before: Any, *, region: str, now: datetime) -> dict[str, Any]:
    """New values by column for what a request names.

    Args:
        before: The card as it is; names are judged together with what stays.

    Raises:
        Invalid: The card would not be acceptable.
    """
    named = given.model_fields_set
    values: dict[str, Any] = {}
    if named & {"kind", "name", "full_name", "short_name"}:
        values |= _changed_names(given, before)
    if "status" in named:
        values["status"] = _present(given.status, "/status")
    if "phones" in named:
        values["phones"] = phones.all_numbers(given.phones or [], region)
    if "email" in named:
        email = emails.normalise(given.email) if given.email else None
        values |= {"email": email, "email_search": emails.search_key(email) if email else None}
    if "messengers" in named:
        values["messengers"] = {str(name): to for name, to in (given.messengers or {}).items()}
    if "address" in named:
        values["address"] = given.address.model_dump(exclude_none=True) if given.address else {}
    if "tags" in named:
        values["tags"] = list(dict.fromkeys(given.tags or []))
    if "birthday" in named:
        _demand_past(given.birthday, now)
    for name in named & {"note", "birthday", "language"}:
        values[name] = getattr(given, name)
    return values


def _changed_names(given: ChangeClient, before: Any) -> dict[str, Any]:
    named = given.model_fields_set
    kind = _present(given.kind, "/kind") if "kind" in named else before.kind
    same_form = (kind == LEGAL_ENTITY) == (before.kind == LEGAL_ENTITY)
    old_name = before.full_name if same_form and kind != LEGAL_ENTITY else None
    old_full = before.full_name if same_form and kind == LEGAL_ENTITY else None
    old_short = before.short_name if same_form and kind == LEGAL_ENTITY else None
    full_name, short_name = names_of(
        kind,
        given.name if "name" in named else old_name,
        given.full_name if "full_name" in named else old_full,
        given.short_name if "short_name" in named else old_short,
    )
    return {
        "kind": kind,
        "full_name": full_name,
        "short_name": short_name,
        "name_search": name_key(full_name, short_name),
    }


def _present(value: str | None, pointer: str) -> str:
    if value is None:
        raise Invalid("This cannot be taken away", pointer=pointer)
    return value


def _demand_past(birthday: date | None, now: datetime) -> None:
    if birthday is not None and birthday > now.date():
        raise BirthdayInFuture(pointer="/birthday")


def shown(card: Any, segment: str | None = None, seq: int | None = None) -> dict[str, Any]:
    """A card as answers carry it, JSON-ready for orjson.

    Args:
        card: A `NewCard`, a `Client` or a row of the table.
        seq: None when scoring has never told a segment.
    """
    company = card.kind == LEGAL_ENTITY
    return {
        "id": str(card.id),
        "version": card.version,
        "kind": card.kind,
        "name": card.short_name if company else card.full_name,
        "full_name": card.full_name if company else None,
        "short_name": card.short_name,
        "owner_id": str(card.owner_id) if card.owner_id else None,
        "status": card.status,
        "phones": phones.shown(card.phones),
        "email": card.email,
        "messengers": card.messengers,
        "address": card.address,
        "tags": list(card.tags),
        "note": card.note,
        "source": card.source,
        "external_id": card.external_id,
        "birthday": card.birthday,
        "language": card.language,
        "segment": {"name": segment, "seq": seq} if seq is not None else None,
        "created_at": card.created_at,
        "changed_at": card.changed_at,
        "archived_at": card.archived_at,
        "archive_reason": card.archive_reason,
    }
