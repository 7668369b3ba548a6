"""HTTP in: many cards at once, read and changed."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import select

from libs.shared import outbox
from libs.shared.auth import Principal
from libs.shared.errors import DomainError, PreconditionFailed
from libs.shared.events import ClientChanged
from libs.shared.http import Int32, Now, Request, Session, router
from services.contacts.access import BatchWriter, Reader, demand_readable
from services.contacts.batches import ProblemView, problem_at
from services.contacts.clients.card import ChangeClient, ClientView, changes_of
from services.contacts.clients.models import Client, ClientNotFound
from services.contacts.clients.search import WITH_SEGMENT, view_of
from services.contacts.policies import phone_region

routes = router(prefix="/v1/clients", tags=["clients"])


class ReadClients(Request):
    """Which cards to read."""

    ids: Annotated[list[UUID], Field(min_length=1, max_length=1000)]


class ReadView(BaseModel):
    """The cards found, in the order asked for, and why others are not shown, by id."""

    items: list[ClientView]
    refused: Annotated[dict[UUID, str], Field(description="Problem code by id.")]


class ChangeOne(Request):
    """A card, the version it was seen at (left out: whatever it is now) and what changes."""

    id: UUID
    version: Int32 | None = None
    change: ChangeClient


class ChangeClients(Request):
    """Changes of up to 1000 cards; each is judged for itself."""

    items: Annotated[list[ChangeOne], Field(min_length=1, max_length=1000)]


class ChangedOneView(BaseModel):
    """What became of one change; `version` is the card's afterwards."""

    index: int
    id: UUID
    outcome: Literal["changed", "unchanged", "refused"]
    version: int | None = None
    problem: ProblemView | None = None


class ChangedView(BaseModel):
    """What became of each change, in the order of the request."""

    items: list[ChangedOneView]
    changed: int
    unchanged: int
    refused: int


@routes.post("/read", summary="Read up to 1000 cards by id")
async def read_clients(given: ReadClients, caller: Reader, session: Session) -> ReadView:
    rows = (await session.execute(WITH_SEGMENT.where(Client.id.in_(given.ids)))).all()
    found = {row[0].id: row for row in rows}
    items: list[ClientView] = []
    refused: dict[UUID, str] = {}
    for client_id in dict.fromkeys(given.ids):
        try:
            items.append(view_of(_readable(found.get(client_id), caller)))
        except DomainError as error:
            refused[client_id] = error.code
    return ReadView(items=items, refused=refused)


def _readable(row: Any, caller: Principal) -> Any:
    if row is None:
        raise ClientNotFound
    demand_readable(caller, row[0].owner_id)
    return row


@routes.post("/change", summary="Change up to 1000 cards; those that cannot be are told")
async def change_clients(
    given: ChangeClients, _caller: BatchWriter, session: Session, now: Now
) -> ChangedView:
    region = await phone_region(session)
    wanted = [item.id for item in given.items]
    # Locked in the order of ids: two batches with the same cards would otherwise deadlock.
    query = select(Client).where(Client.id.in_(wanted)).order_by(Client.id)
    locked = await session.scalars(query.with_for_update(key_share=True))
    cards = {client.id: client for client in locked}
    events: list[ClientChanged] = []
    told = [
        _change_one(place, item, cards.get(item.id), region, now, events)
        for place, item in enumerate(given.items)
    ]
    await outbox.add(session, *events)
    counts = {
        outcome: sum(one.outcome == outcome for one in told)
        for outcome in ("changed", "unchanged", "refused")
    }
    return ChangedView(items=told, **counts)


def _change_one(
    place: int,
    item: ChangeOne,
    card: Client | None,
    region: str,
    now: datetime,
    events: list[ClientChanged],
) -> ChangedOneView:
    try:
        if card is None:
            raise ClientNotFound
        if item.version not in (None, card.version):
            raise PreconditionFailed(current_version=card.version)
        event = card.change(changes_of(item.change, card, region=region, now=now), at=now)
    except DomainError as error:
        problem = ProblemView.model_validate(problem_at(place, error))
        return ChangedOneView(index=place, id=item.id, outcome="refused", problem=problem)
    if event is not None:
        events.append(event)
    return ChangedOneView(
        index=place, id=item.id, outcome="changed" if event else "unchanged", version=card.version
    )
