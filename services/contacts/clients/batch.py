"""Many cards at once: good items are created together, bad ones are told one by one.

`external_id` is unique within its source: an item that was brought before gives its card's id back
and changes nothing.
"""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from libs.shared import outbox
from libs.shared.database import Connection, dumps
from libs.shared.errors import Invalid
from libs.shared.http import Request, Text50
from services.contacts.batches import Batch, find_present, judge
from services.contacts.clients.card import ClientItem, NewCard, new_card
from services.contacts.clients.creation import COLUMNS, created

MOST = 1000

_ITEMS = TypeAdapter(list[ClientItem])
_TYPES = {
    "id": "uuid",
    "version": "integer",
    "owner_id": "uuid",
    "birthday": "date",
    "phones": "text[]",
    "tags": "text[]",
    "messengers": "jsonb",
    "address": "jsonb",
    "created_at": "timestamptz",
    "changed_at": "timestamptz",
}
_RECORD = ", ".join(f"{name} {_TYPES.get(name, 'text')}" for name in COLUMNS)
# In the order of external ids: two batches with the same ones would otherwise deadlock.
_INSERT = f"""
    INSERT INTO clients ({", ".join(COLUMNS)})
    SELECT {", ".join(COLUMNS)} FROM json_to_recordset($1::json) AS given ({_RECORD})
    ORDER BY source, external_id
    ON CONFLICT (source, external_id) WHERE external_id IS NOT NULL DO NOTHING RETURNING id
"""


class ClientBatch(Request):
    """Cards to be created; `source` is theirs where an item names none."""

    source: Text50
    items: Annotated[list[Any], Field(min_length=1, max_length=MOST)]


class ClientBatchBody(ClientBatch):
    """The same as documentation shows it."""

    items: Annotated[list[ClientItem], Field(min_length=1, max_length=MOST)]


async def create_many(tx: Connection, given: ClientBatch, *, region: str, now: datetime) -> bytes:
    """Create the cards of a batch in the transaction; the answer's body.

    The whole of it may be sent again: what has an external id is not created twice.
    """
    batch = judge(given.items, _ITEMS)
    made = _made(batch, given.source, region, now)
    inserted = await tx.fetch(_INSERT, _json_of(made)) if made else []
    present = await find_present(
        tx, "clients", (row["id"] for row in inserted), list(made.values())
    )
    new = batch.settle_inserted(made, present)
    await outbox.add_all(tx, [created(made[index]) for index in sorted(new)])
    return batch.answer()


def _made(batch: Batch[ClientItem], source: str, region: str, now: datetime) -> dict[int, NewCard]:
    made = {}
    for index, item in list(batch.items.items()):
        try:
            card = new_card(item, region=region, now=now)
        except Invalid as error:
            batch.refuse(index, error)
        else:
            card.source = card.source or source
            made[index] = card
    return made


def _json_of(made: dict[int, NewCard]) -> str:
    rows = [{name: getattr(card, name) for name in COLUMNS} for card in made.values()]
    return dumps(rows)
