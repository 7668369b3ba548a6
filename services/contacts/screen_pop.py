"""The telephone rings: who it is, what was said last, what is open — in one call."""

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy import select

from libs.shared.errors import NotFound
from libs.shared.http import Session, problems, router
from services.contacts.access import ClientNotYours, Reader, demand_readable
from services.contacts.clients import phones, search
from services.contacts.clients.card import ClientView
from services.contacts.deals.finding import DealView
from services.contacts.deals.finding import view as deal_view
from services.contacts.deals.models import Deal
from services.contacts.interactions.finding import (
    InteractionView,
    PromiseView,
    promise_view,
    timeline,
)
from services.contacts.interactions.finding import view as interaction_view
from services.contacts.interactions.models import Promise
from services.contacts.policies import phone_region

LAST = 10
MOST_OPEN = 50

routes = router(prefix="/v1/screen-pop", tags=["clients"])


class CallerUnknown(NotFound):
    """No card has this phone number."""

    code = "caller-unknown"
    ru = "Карточки с таким номером нет."


class ScreenPop(BaseModel):
    """The card with its last interactions, its open deals and what is owed to the client."""

    client: ClientView
    interactions: list[InteractionView]
    open_deals: list[DealView]
    open_promises: list[PromiseView]


@routes.get(
    "",
    responses=problems(CallerUnknown, ClientNotYours, *phones.REFUSALS),
    summary="The card of a caller with the last interactions and open deals",
)
async def pop_screen(
    phone: Annotated[str, Query(min_length=1, max_length=200)], session: Session, caller: Reader
) -> ScreenPop:
    region = await phone_region(session)
    row = await search.by_phone(session, phone, region)
    if row is None:
        raise CallerUnknown
    client = search.view_of(row)
    demand_readable(caller, client.owner_id)
    talks = await timeline(session, client.id, limit=LAST)
    deals = select(Deal).where(Deal.client_id == client.id, Deal.state == "open")
    deals = deals.order_by(Deal.id.desc()).limit(MOST_OPEN)
    owed = select(Promise).where(Promise.client_id == client.id, Promise.kept_at.is_(None))
    owed = owed.order_by(Promise.due_on).limit(MOST_OPEN)
    return ScreenPop(
        client=client,
        interactions=[interaction_view(talk) for talk in talks],
        open_deals=[deal_view(deal) for deal in await session.scalars(deals)],
        open_promises=[promise_view(promise) for promise in await session.scalars(owed)],
    )
