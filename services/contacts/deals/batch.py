"""Thousands of closed deals at once: imports, cash registers, order feeds.

A batch opens and closes its deals in one transaction of three statements. `external_id` is unique
within its source: what was brought before is answered with its deal's id and says nothing again.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, TypeAdapter

from libs.shared import outbox, policies
from libs.shared.database import Connection
from libs.shared.errors import DomainError
from libs.shared.events import DealClosed, DealLost
from libs.shared.http import AmountMinor, Code, Currency, Instant, Request, Text50, Text200
from libs.shared.ids import new_id
from services.contacts.batches import Batch, at_client, find_present, judge
from services.contacts.clients.models import ClientIsArchived, ClientNotFound
from services.contacts.deals.closing import AmountMissing, LossWithoutReason, demand_reason
from services.contacts.deals.models import ClosedInFuture
from services.contacts.policies import PipelinePolicy, RefusalPolicy

MOST = 5000

_INSERT = """
    INSERT INTO deals (id, client_id, version, state, title, pipeline, stage, amount_minor,
        currency, manager_id, opened_at, closed_at, reason, source, external_id, created_at)
    SELECT id, client_id, 1, state, title, $10, $11, amount, currency, manager, closed, closed,
        reason, $12, external, $13
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::text[],
        $7::timestamptz[], $8::text[], $9::text[], $14::uuid[])
        AS given (id, client_id, state, title, amount, currency, closed, reason, external, manager)
    ORDER BY external -- two batches with the same ones would otherwise deadlock
    ON CONFLICT (source, external_id) WHERE external_id IS NOT NULL DO NOTHING RETURNING id
"""
_CLIENTS = """
    SELECT id, owner_id, archived_at IS NOT NULL AS archived FROM clients WHERE id = ANY($1::uuid[])
"""


class DealItem(Request):
    """A deal that is over: what was paid, or why nothing was."""

    client_id: UUID
    outcome: Literal["won", "lost"]
    closed_at: Instant
    amount_minor: AmountMinor | None = None
    currency: Currency | None = None
    external_id: Text200 | None = None
    title: Text200 | None = None
    reason: Code | None = None


class DealBatch(Request):
    """Deals of one source. `each`: good ones are taken; `all_or_nothing`: all or none."""

    source: Text50
    mode: Literal["each", "all_or_nothing"] = "each"
    items: Annotated[list[Any], Field(min_length=1, max_length=MOST)]


class DealBatchBody(DealBatch):
    """The same as documentation shows it."""

    items: Annotated[list[DealItem], Field(min_length=1, max_length=MOST)]


class _Row:
    """A deal about to be stored."""

    __slots__ = ("external_id", "id", "item", "manager_id", "source")

    def __init__(self, item: DealItem, source: str, manager_id: UUID | None) -> None:
        self.id = new_id()
        self.item = item
        self.source = source
        self.external_id = item.external_id
        self.manager_id = manager_id


_ITEMS = TypeAdapter(list[DealItem])


async def close_many(tx: Connection, given: DealBatch, *, now: datetime) -> bytes:
    """Open and close the deals of a batch in the transaction; the answer's body.

    Events of one client have the order of the request.

    Raises:
        BatchRefused: In mode `all_or_nothing`, when any item is not acceptable.
    """
    batch = judge(given.items, _ITEMS)
    pipeline = (await policies.current(tx, PipelinePolicy)).body.pipelines[0]
    await _judge_deals(tx, batch, now)
    rows = await _rows(tx, batch, given.source)
    if given.mode == "all_or_nothing":
        batch.demand_whole()
    inserted = (
        await _insert(
            tx,
            list(rows.values()),
            *(pipeline.code, pipeline.stages[-1].code, given.source, now),
        )
        if rows
        else set()
    )
    present = await find_present(tx, "deals", inserted, rows.values())
    new = batch.settle_inserted(rows, present)
    await outbox.add_all(tx, [_closed(rows[index], now) for index in sorted(new)])
    return batch.answer()


async def _judge_deals(tx: Connection, batch: Batch[DealItem], now: datetime) -> None:
    reasons = (await policies.current(tx, RefusalPolicy)).body.codes()
    for index, item in list(batch.items.items()):
        error: DomainError | None = None
        if item.closed_at > now:
            error = ClosedInFuture(pointer="/closed_at")
        elif item.outcome == "won":
            error = _unpaid(item)
        else:
            error = _without_reason(item, reasons)
        if error is not None:
            batch.refuse(index, error)


def _unpaid(item: DealItem) -> DomainError | None:
    if item.amount_minor is None:
        return AmountMissing(pointer="/amount_minor")
    if item.currency is None:
        return AmountMissing(pointer="/currency")
    return None


def _without_reason(item: DealItem, reasons: Iterable[str]) -> DomainError | None:
    if item.reason is None:
        return LossWithoutReason(pointer="/reason")
    try:
        demand_reason(item.reason, reasons)
    except DomainError as error:
        return error
    return None


async def _rows(tx: Connection, batch: Batch[DealItem], source: str) -> dict[int, _Row]:
    """Rows to be stored; items whose client is unknown or put away are refused."""
    wanted = list({item.client_id for item in batch.items.values()})
    # Not locked: cards are never deleted, and a deal beside an archiving harms nobody.
    known = {row["id"]: row for row in await tx.fetch(_CLIENTS, wanted)} if wanted else {}
    rows = {}
    for index, item in list(batch.items.items()):
        client = known.get(item.client_id)
        if client is None:
            batch.refuse(index, at_client(ClientNotFound))
        elif client["archived"]:
            batch.refuse(index, at_client(ClientIsArchived))
        else:
            rows[index] = _Row(item, source, client["owner_id"])
    return rows


async def _insert(
    tx: Connection, rows: list[_Row], pipeline: str, stage: str, source: str, now: datetime
) -> set[UUID]:
    items = [row.item for row in rows]
    inserted = await tx.fetch(
        _INSERT,
        [row.id for row in rows],
        [item.client_id for item in items],
        [item.outcome for item in items],
        [item.title for item in items],
        [item.amount_minor for item in items],
        [item.currency for item in items],
        [item.closed_at for item in items],
        [item.reason if item.outcome == "lost" else None for item in items],
        [item.external_id for item in items],
        *(pipeline, stage, source, now),
        [row.manager_id for row in rows],
    )
    return {row["id"] for row in inserted}


def _closed(row: _Row, now: datetime) -> DealClosed | DealLost:
    item = row.item
    if item.outcome == "won":
        return DealClosed(
            deal_id=row.id,
            client_id=item.client_id,
            closed_at=item.closed_at,
            amount_minor=item.amount_minor or 0,
            currency=item.currency or "",
            manager_id=row.manager_id,
            occurred_at=now,
        )
    return DealLost(
        deal_id=row.id,
        client_id=item.client_id,
        closed_at=item.closed_at,
        reason=item.reason or "",
        manager_id=row.manager_id,
        occurred_at=now,
    )
