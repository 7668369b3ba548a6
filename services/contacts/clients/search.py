"""Finding clients: by any spelling of a phone, by e-mail, by a part of a name, by who has them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared.auth import Principal
from libs.shared.http import Cursor, Flag, Page, Request, page_of
from services.contacts.access import demand_changeable, sees_all
from services.contacts.clients import emails, phones
from services.contacts.clients.card import ClientView, shown
from services.contacts.clients.models import Client, ClientNotFound, ClientSegment
from services.contacts.clients.names import name_key

WITH_SEGMENT = select(Client, ClientSegment.segment, ClientSegment.seq).outerjoin(
    ClientSegment, ClientSegment.client_id == Client.id
)


class Wanted(Request):
    """What a list of clients is narrowed by; several must all hold."""

    phone: str | None = None
    email: str | None = None
    name: str | None = None
    owner_id: UUID | None = None
    status: str | None = None
    tag: str | None = None
    segment: str | None = None
    external_id: str | None = None
    archived: Flag | None = False

    def conditions(self, region: str) -> list[ColumnElement[bool]]:
        """As conditions of a query.

        Raises:
            PhoneRefused: The phone cannot be read.
        """
        found: list[ColumnElement[bool]] = []
        if self.phone is not None:
            found.append(Client.phones.contains([_number(self.phone, region)]))
        if self.email is not None:
            found.append(Client.email_search == emails.search_key(self.email))
        if self.name is not None:
            found.append(Client.name_search.contains(name_key(self.name), autoescape=True))
        if self.tag is not None:
            found.append(Client.tags.contains([self.tag]))
        if self.segment is not None:
            found.append(ClientSegment.segment == self.segment)
        if self.archived is not None:
            archived = Client.archived_at.is_not(None)
            found.append(archived if self.archived else ~archived)
        for column, value in (
            (Client.owner_id, self.owner_id),
            (Client.status, self.status),
            (Client.external_id, self.external_id),
        ):
            if value is not None:
                found.append(column == value)
        return found


def _number(text: str, region: str) -> str:
    try:
        return phones.normalise(text, region)
    except phones.PhoneRefused as error:
        raise type(error)(pointer="/phone") from None


async def find_clients(
    session: AsyncSession,
    wanted: Wanted,
    *,
    caller: Principal,
    region: str,
    cursor: str | None,
    limit: int,
) -> Page[ClientView]:
    """A page of the clients that the caller may see, the newest first.

    Raises:
        PhoneRefused: The phone cannot be read.
        CursorInvalid: The cursor is of another list.
    """
    filters = wanted.model_dump(mode="json")
    query = WITH_SEGMENT.where(*wanted.conditions(region), *_seen_by(caller))
    last = Cursor.decode(cursor, tuple[UUID], filters)
    if last is not None:
        query = query.where(Client.id < last[0])
    rows = (await session.execute(query.order_by(Client.id.desc()).limit(limit + 1))).all()
    return page_of(
        rows,
        limit=limit,
        view=view_of,
        sort_values=lambda row: [row[0].id],
        filters=filters,
    )


def _seen_by(caller: Principal) -> list[ColumnElement[bool]]:
    if sees_all(caller):
        return []
    nobodys = Client.owner_id.is_(None)
    return [or_(nobodys, Client.owner_id == caller.manager_id) if caller.manager_id else nobodys]


def view_of(row: Sequence[Any]) -> ClientView:
    """A row of `WITH_SEGMENT` as answers carry it."""
    client, segment, seq = row
    return ClientView.model_validate(shown(client, segment, seq))


async def by_phone(session: AsyncSession, phone: str, region: str) -> Sequence[Any] | None:
    """The card to show for a call: one in use before an archived one, the oldest first.

    Raises:
        PhoneRefused: The phone cannot be read.
    """
    query = WITH_SEGMENT.where(Client.phones.contains([_number(phone, region)]))
    query = query.order_by(Client.archived_at.is_not(None), Client.id).limit(1)
    row: Sequence[Any] | None = (await session.execute(query)).one_or_none()
    return row


async def find(session: AsyncSession, client_id: UUID, *, lock: bool = False) -> Client:
    """A card by id.

    Args:
        lock: Hold its row until the transaction ends, as whoever changes it must.

    Raises:
        ClientNotFound: There is none.
    """
    query = select(Client).where(Client.id == client_id)
    if lock:
        query = query.with_for_update(key_share=True)
    client = await session.scalar(query)
    if client is None:
        raise ClientNotFound(client_id=str(client_id))
    return client


async def find_to_write_for(session: AsyncSession, client_id: UUID, caller: Principal) -> Client:
    """A card in use of a client for whom the caller may write.

    Raises:
        ClientNotFound, ClientNotYours, ClientIsArchived: As they say.
    """
    client = await find(session, client_id)
    demand_changeable(caller, client.owner_id)
    client.demand_in_use()
    return client


async def find_view(session: AsyncSession, client_id: UUID) -> ClientView:
    """A card by id as answers carry it.

    Raises:
        ClientNotFound: There is none.
    """
    row = (await session.execute(WITH_SEGMENT.where(Client.id == client_id))).one_or_none()
    if row is None:
        raise ClientNotFound(client_id=str(client_id))
    return view_of(row)
