"""Finding a deal for those who may see or change it, and showing it."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared.auth import Principal
from libs.shared.http import demand_version, set_etag
from services.contacts.access import demand_changeable
from services.contacts.clients import search
from services.contacts.clients.models import Client
from services.contacts.deals.models import Deal, DealNotFound


class DealView(BaseModel):
    """A deal. `amount_minor` is before returns."""

    id: UUID
    client_id: UUID
    version: int
    state: str
    title: str | None
    pipeline: str
    stage: str
    amount_minor: int | None
    currency: str | None
    returned_minor: int
    manager_id: UUID | None
    opened_at: datetime
    closed_at: datetime | None
    reason: str | None
    source: str | None
    external_id: str | None


def view(deal: Deal) -> DealView:
    """A deal as answers carry it."""
    return DealView.model_validate(deal, from_attributes=True)


def told(deal: Deal, response: Response) -> DealView:
    """A deal as the answer, with its version in the ETag."""
    set_etag(response, deal.version)
    return view(deal)


async def find(session: AsyncSession, deal_id: UUID, *, lock: bool = False) -> tuple[Deal, Client]:
    """A deal and its client.

    Raises:
        DealNotFound: No such deal.
    """
    query = select(Deal).where(Deal.id == deal_id)
    deal = await session.scalar(query.with_for_update(key_share=True) if lock else query)
    if deal is None:
        raise DealNotFound(deal_id=str(deal_id))
    return deal, await search.find(session, deal.client_id)


async def find_to_change(
    session: AsyncSession, deal_id: UUID, caller: Principal, expected: int
) -> Deal:
    """A deal, locked for the caller's change of the version that was seen.

    Raises:
        DealNotFound, ClientNotYours, ClientIsArchived: As they say.
        PreconditionFailed: It has another version by now.
    """
    deal, client = await find(session, deal_id, lock=True)
    demand_changeable(caller, client.owner_id)
    demand_version(expected, deal.version)
    client.demand_in_use()
    return deal
