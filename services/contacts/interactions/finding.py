"""Finding interactions for those who may see or change them, and showing them."""

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared.auth import Principal
from libs.shared.http import demand_version, set_etag
from services.contacts.access import demand_changeable
from services.contacts.clients import search
from services.contacts.clients.models import Client
from services.contacts.interactions.models import Interaction, InteractionNotFound, Promise


class PromiseView(BaseModel):
    """What was promised to a client until a day."""

    id: UUID
    interaction_id: UUID
    client_id: UUID
    owner_id: UUID | None
    text: str
    due_on: date
    kept_at: datetime | None


def promise_view(promise: Promise) -> PromiseView:
    """A promise as answers carry it."""
    return PromiseView.model_validate(promise, from_attributes=True)


class InteractionView(BaseModel):
    """One entry of a timeline; `at` is when it happened or starts."""

    id: UUID
    client_id: UUID
    version: int
    kind: str
    state: str
    direction: str
    at: datetime
    duration_minutes: int | None
    topic: str
    outcome: str | None
    objections: list[str]
    agreements: list[str]
    manager_id: UUID | None
    moves: int
    reason: str | None
    rating: int | None
    recorded_by: str
    promises: list[PromiseView]


def view(interaction: Interaction, promises: Sequence[Promise] = ()) -> InteractionView:
    """An entry as answers carry it."""
    names = InteractionView.model_fields.keys() - {"promises"}
    shown = [promise_view(one) for one in promises]
    return InteractionView(**{name: getattr(interaction, name) for name in names}, promises=shown)


def told(
    interaction: Interaction, promises: Sequence[Promise], response: Response, *, new: bool = False
) -> InteractionView:
    """An entry as the answer, with its version in the ETag; a new one with its place."""
    set_etag(response, interaction.version)
    if new:
        response.headers["Location"] = f"/v1/interactions/{interaction.id}"
    return view(interaction, promises)


async def timeline(
    session: AsyncSession,
    client_id: UUID,
    *,
    kind: str | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int,
) -> Sequence[Interaction]:
    """Entries of a client, the newest first."""
    query = select(Interaction).where(Interaction.client_id == client_id)
    if kind is not None:
        query = query.where(Interaction.kind == kind)
    if after is not None:
        query = query.where(tuple_(Interaction.at, Interaction.id) < tuple_(*after))
    order = (Interaction.at.desc(), Interaction.id.desc())
    return (await session.scalars(query.order_by(*order).limit(limit))).all()


async def promises_by_interaction(
    session: AsyncSession, rows: Sequence[Interaction]
) -> dict[UUID, list[Promise]]:
    """What was promised in each of the interactions, in the order of promising."""
    wanted = [row.id for row in rows]
    query = select(Promise).where(Promise.interaction_id.in_(wanted)).order_by(Promise.id)
    found: dict[UUID, list[Promise]] = {}
    for promise in await session.scalars(query):
        found.setdefault(promise.interaction_id, []).append(promise)
    return found


async def find(
    session: AsyncSession, interaction_id: UUID, *, lock: bool = False
) -> tuple[Interaction, Client]:
    """An interaction and its client.

    Raises:
        InteractionNotFound: No such interaction.
    """
    query = select(Interaction).where(Interaction.id == interaction_id)
    found = await session.scalar(query.with_for_update(key_share=True) if lock else query)
    if found is None:
        raise InteractionNotFound(interaction_id=str(interaction_id))
    return found, await search.find(session, found.client_id)


async def find_to_change(
    session: AsyncSession, interaction_id: UUID, caller: Principal, expected: int
) -> Interaction:
    """An interaction, locked for the caller's change of the version that was seen.

    Raises:
        InteractionNotFound, ClientNotYours, ClientIsArchived: As they say.
        PreconditionFailed: It has another version by now.
    """
    found, client = await find(session, interaction_id, lock=True)
    demand_changeable(caller, client.owner_id)
    demand_version(expected, found.version)
    client.demand_in_use()
    return found
