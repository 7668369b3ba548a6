"""Writing down what happened: topic, outcome, objections, agreements, promises with their days.

One call writes all of it, because a manager has two minutes for it after a talk.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, TypeAdapter, model_validator

from libs.shared import outbox
from libs.shared.database import Connection, dumps
from libs.shared.http import CalendarDay, Instant, Request, Text50, Text200, Text2000, Text20000
from libs.shared.ids import new_id
from services.contacts.batches import Batch, at_client, find_present, judge
from services.contacts.clients.models import ClientIsArchived, ClientNotFound
from services.contacts.interactions.complaints import give_complaints
from services.contacts.interactions.models import (
    HappenedInFuture,
    Interaction,
    Promise,
    demand_past,
)

MOST = 1000

Kind = Literal["call", "meeting", "message", "letter", "visit", "complaint", "review", "note"]
Direction = Literal["incoming", "outgoing", "none"]
Minutes = Annotated[int, Field(strict=True, ge=0, le=7 * 24 * 60)]
Texts = Annotated[list[Text2000], Field(max_length=50)]

_COLUMNS = {
    "id": "uuid",
    "client_id": "uuid",
    "version": "integer",
    "kind": "text",
    "state": "text",
    "direction": "text",
    "at": "timestamptz",
    "duration_minutes": "integer",
    "topic": "text",
    "outcome": "text",
    "objections": "text[]",
    "agreements": "text[]",
    "manager_id": "uuid",
    "rating": "smallint",
    "moves": "integer",
    "source": "text",
    "external_id": "text",
    "recorded_by": "text",
    "created_at": "timestamptz",
}
# In the order of external ids: two batches with the same ones would otherwise deadlock.
_INSERT = f"""
    INSERT INTO interactions ({", ".join(_COLUMNS)})
    SELECT {", ".join(_COLUMNS)} FROM json_to_recordset($1::json)
        AS given ({", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())})
    ORDER BY source, external_id
    ON CONFLICT (source, external_id) WHERE external_id IS NOT NULL DO NOTHING RETURNING id
"""
_INSERT_PROMISES = """
    INSERT INTO promises (id, interaction_id, client_id, owner_id, text, due_on)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::date[])
"""
_CLIENTS = "SELECT id, owner_id, archived_at FROM clients WHERE id = ANY($1::uuid[])"


class MakePromise(Request):
    """What was promised, and until which day; the manager owes it unless another is named."""

    text: Text2000
    due_on: CalendarDay
    owner_id: UUID | None = None


class RecordInteraction(Request):
    """What happened; now and by the caller unless something else is said.

    Attributes:
        rating: Of a review, 1 to 5 (best).
    """

    kind: Kind
    direction: Direction = "none"
    happened_at: Instant | None = None
    duration_minutes: Minutes | None = None
    topic: Annotated[str, Field(max_length=2000)] = ""
    outcome: Text20000 | None = None
    objections: Texts = Field(default_factory=list)
    agreements: Texts = Field(default_factory=list)
    promises: Annotated[list[MakePromise], Field(max_length=50)] = Field(default_factory=list)
    manager_id: UUID | None = None
    rating: Annotated[int, Field(strict=True, ge=1, le=5)] | None = None

    @model_validator(mode="after")
    def _only_reviews_rate(self) -> Self:
        if self.rating is not None and self.kind != "review":
            raise ValueError("only a review has a rating")
        return self


class InteractionItem(RecordInteraction):
    """An interaction of a batch."""

    client_id: UUID
    external_id: Text200 | None = None


class InteractionBatch(Request):
    """Interactions of one source."""

    source: Text50
    items: Annotated[list[Any], Field(min_length=1, max_length=MOST)]


class InteractionBatchBody(InteractionBatch):
    """The same as documentation shows it."""

    items: Annotated[list[InteractionItem], Field(min_length=1, max_length=MOST)]


_ITEMS = TypeAdapter(list[InteractionItem])


def recorded(
    given: RecordInteraction,
    client_id: UUID,
    *,
    manager_id: UUID | None,
    by: str,
    now: datetime,
) -> Interaction:
    """The row of something that has happened.

    Raises:
        HappenedInFuture: It has not.
    """
    happened_at = given.happened_at or now
    demand_past(happened_at, now=now)
    return Interaction(
        id=new_id(),
        client_id=client_id,
        version=1,
        kind=given.kind,
        state="recorded",
        direction=given.direction,
        at=happened_at,
        duration_minutes=given.duration_minutes,
        topic=given.topic,
        outcome=given.outcome,
        objections=given.objections,
        agreements=given.agreements,
        manager_id=given.manager_id or manager_id,
        rating=given.rating,
        moves=0,
        recorded_by=by,
        created_at=now,
    )


def promises_of(given: list[MakePromise], interaction: Interaction) -> list[Promise]:
    """The rows of what was promised."""
    return [
        Promise(
            id=new_id(),
            interaction_id=interaction.id,
            client_id=interaction.client_id,
            owner_id=promise.owner_id or interaction.manager_id,
            text=promise.text,
            due_on=promise.due_on,
        )
        for promise in given
    ]


async def record_many(tx: Connection, given: InteractionBatch, *, by: str, now: datetime) -> bytes:
    """Write down a batch in the transaction; the answer's body. A repeat adds nothing."""
    batch = judge(given.items, _ITEMS)
    rows, promises = await _rows(tx, batch, given.source, by=by, now=now)
    told = [{name: getattr(row, name) for name in _COLUMNS} for row in rows.values()]
    inserted = await tx.fetch(_INSERT, dumps(told)) if rows else []
    present = await find_present(tx, "interactions", (row["id"] for row in inserted), rows.values())
    new = batch.settle_inserted(rows, present)
    owed = [promise for index in sorted(new) for promise in promises[index]]
    names = ("id", "interaction_id", "client_id", "owner_id", "text", "due_on")
    await tx.execute(_INSERT_PROMISES, *([getattr(one, name) for one in owed] for name in names))
    await outbox.add_all(tx, [rows[i].recorded(promises[i]) for i in sorted(new)])
    await give_complaints(tx, [rows[i] for i in sorted(new)], now=now)
    return batch.answer()


async def _rows(
    tx: Connection, batch: Batch[InteractionItem], source: str, *, by: str, now: datetime
) -> tuple[dict[int, Interaction], dict[int, list[Promise]]]:
    wanted = list({item.client_id for item in batch.items.values()})
    known = {row["id"]: row for row in await tx.fetch(_CLIENTS, wanted)}
    rows, promises = {}, {}
    for index, item in list(batch.items.items()):
        client = known.get(item.client_id)
        if client is None:
            batch.refuse(index, at_client(ClientNotFound))
            continue
        if client["archived_at"] is not None:
            batch.refuse(index, at_client(ClientIsArchived))
            continue
        try:
            row = recorded(item, item.client_id, manager_id=client["owner_id"], by=by, now=now)
        except HappenedInFuture as error:
            batch.refuse(index, error)
            continue
        row.source, row.external_id = source, item.external_id
        rows[index], promises[index] = row, promises_of(item.promises, row)
    return rows, promises
