"""Many views of pages at once: new ones are kept and told of, what was told before is not again.

A site knows its visitor by the card's id, or by its own id of them, which is the card's external id
of the same source. Only site and path are kept: a query may hold anything.

Source: requirement S-16.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, NamedTuple, Self
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import Field, TypeAdapter, model_validator

from libs.shared import outbox
from libs.shared.database import Connection
from libs.shared.errors import Invalid
from libs.shared.events import PageViewed
from libs.shared.http import Instant, Request, Text50, Text200, Text2000
from libs.shared.ids import new_id
from services.contacts.batches import Batch, at_client, find_present, judge
from services.contacts.clients.models import ClientNotFound
from services.contacts.leads.marks import domain_of

MOST = 1000
MAX_PAGE = 500

_CLIENTS = """
    SELECT id, external_id FROM clients WHERE id = ANY($1::uuid[])
        OR (source = $2 AND external_id = ANY($3::text[]))
"""
# In the order of external ids: two batches with the same ones would otherwise deadlock.
_INSERT = """
    INSERT INTO page_views
    SELECT id, client_id, site, page, viewed_at, $7, external_id, $8
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::text[])
        AS given (id, client_id, site, page, viewed_at, external_id)
    ORDER BY external_id ON CONFLICT (source, external_id) DO NOTHING RETURNING id
"""


class PageAddressInvalid(Invalid):
    """The address of a page needs a domain: `https://shop.example/price`."""

    code = "page-address-invalid"
    ru = "В адресе страницы нужен домен: https://shop.example/price."


class ViewedInFuture(Invalid):
    """A page cannot have been viewed in the future."""

    code = "viewed-in-future"
    ru = "Страница не может быть просмотрена в будущем."


class PageViewItem(Request):
    """A client has looked at a page.

    Attributes:
        client_id: The card, or else `client_external_id`: the source's own id of the client.
        external_id: The source's id of this view: told twice, it counts once.
    """

    url: Text2000
    viewed_at: Instant
    external_id: Text200
    client_id: UUID | None = None
    client_external_id: Text200 | None = None

    @model_validator(mode="after")
    def _names_one_client(self) -> Self:
        if (self.client_id is None) == (self.client_external_id is None):
            raise ValueError("either client_id or client_external_id")
        return self


class PageViewBatch(Request):
    """Views of one source."""

    source: Text50
    items: Annotated[list[Any], Field(min_length=1, max_length=MOST)]


class PageViewBatchBody(PageViewBatch):
    """The same as documentation shows it."""

    items: Annotated[list[PageViewItem], Field(min_length=1, max_length=MOST)]


class View(NamedTuple):
    """A row to be kept."""

    id: UUID
    client_id: UUID
    site: str
    page: str
    viewed_at: datetime
    external_id: str
    source: str


_ITEMS = TypeAdapter(list[PageViewItem])


def page_of(url: str) -> tuple[str, str]:
    """Site and path of an address, both without what may be personal.

    Raises:
        PageAddressInvalid: It has no domain.
    """
    plain = url.strip()
    site = domain_of(plain)
    if site is None:
        raise PageAddressInvalid(pointer="/url")
    path = urlsplit(plain if "//" in plain else "//" + plain).path
    return site, ("/" + path.strip("/"))[:MAX_PAGE]


async def keep_views(tx: Connection, given: PageViewBatch, *, now: datetime) -> bytes:
    """Keep the views of a batch in the transaction; the answer's body."""
    batch = judge(given.items, _ITEMS)
    rows = await _rows(tx, batch, given.source, now)
    columns = zip(*(row[:6] for row in rows.values()), strict=True)
    stored = await tx.fetch(_INSERT, *map(list, columns), given.source, now) if rows else []
    present = await find_present(tx, "page_views", (row["id"] for row in stored), rows.values())
    new = batch.settle_inserted(rows, present)
    await outbox.add_all(tx, [_event(rows[index], now) for index in sorted(new)])
    return batch.answer()


async def _rows(
    tx: Connection, batch: Batch[PageViewItem], source: str, now: datetime
) -> dict[int, View]:
    known = await _known(tx, batch.items.values(), source)
    rows = {}
    for index, item in list(batch.items.items()):
        client = known.get(item.client_id or item.client_external_id)
        if client is None:
            member = "client_id" if item.client_id else "client_external_id"
            batch.refuse(index, at_client(ClientNotFound, f"/{member}"))
            continue
        try:
            place = page_of(item.url)
            if item.viewed_at > now:
                raise ViewedInFuture(pointer="/viewed_at")
        except Invalid as error:
            batch.refuse(index, error)
            continue
        rows[index] = View(new_id(), client, *place, item.viewed_at, item.external_id, source)
    return rows


async def _known(
    tx: Connection, items: Iterable[PageViewItem], source: str
) -> dict[UUID | str | None, UUID]:
    """Cards by their ids and by the source's own."""
    ids, externals = set(), set()
    for item in items:
        if item.client_id is not None:
            ids.add(item.client_id)
        else:
            externals.add(item.client_external_id)
    found: dict[UUID | str | None, UUID] = {}
    for card, external_id in await tx.fetch(_CLIENTS, list(ids), source, list(externals)):
        found[card] = card
        if external_id in externals:
            found[external_id] = card
    return found


def _event(view: View, now: datetime) -> PageViewed:
    return PageViewed(
        client_id=view.client_id,
        site=view.site,
        page=view.page,
        viewed_at=view.viewed_at,
        occurred_at=now,
    )
