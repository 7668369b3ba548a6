"""HTTP in: winning a deal, losing it, giving money back."""

from typing import Annotated
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from libs.shared import outbox, policies
from libs.shared.http import (
    AmountMinor,
    Code,
    Currency,
    IfMatch,
    Instant,
    Now,
    Request,
    Session,
    Text2000,
    problems,
    router,
)
from services.contacts.access import ClientNotYours, Writer
from services.contacts.deals.closing import ReasonUnknown, demand_reason
from services.contacts.deals.finding import DealView, find_to_change, told
from services.contacts.deals.models import (
    ClosedBeforeOpened,
    ClosedInFuture,
    DealIsClosed,
    DealNotFound,
    DealNotWon,
    Price,
    ReturnTooLarge,
    Reversal,
)
from services.contacts.policies import RefusalPolicy

routes = router(prefix="/v1", tags=["deals"])

_FOUND = (DealNotFound, ClientNotYours)


class WinDeal(Request):
    """What was paid, and when; now if nothing is said."""

    amount_minor: AmountMinor
    currency: Currency
    closed_at: Instant | None = None


class LoseDeal(Request):
    """Why nothing was paid: a code of the company's list."""

    reason: Code
    closed_at: Instant | None = None


class ReverseDeal(Request):
    """What is given back; all that is left if no amount is named."""

    amount_minor: Annotated[AmountMinor, Field(ge=1)] | None = None
    reason: Text2000


@routes.post(
    "/deals/{deal_id}/win",
    responses=problems(*_FOUND, DealIsClosed, ClosedInFuture, ClosedBeforeOpened),
    summary="Close a deal with money",
)
async def win_deal(
    deal_id: UUID,
    given: WinDeal,
    expected: IfMatch,
    session: Session,
    caller: Writer,
    now: Now,
    response: Response,
) -> DealView:
    deal = await find_to_change(session, deal_id, caller, expected)
    price = Price(given.amount_minor, given.currency)
    await outbox.add(session, deal.win(price, closed_at=given.closed_at or now, at=now))
    return told(deal, response)


@routes.post(
    "/deals/{deal_id}/lose",
    responses=problems(*_FOUND, DealIsClosed, ReasonUnknown, ClosedInFuture, ClosedBeforeOpened),
    summary="Close a deal without money; the reason is mandatory",
)
async def lose_deal(
    deal_id: UUID,
    given: LoseDeal,
    expected: IfMatch,
    session: Session,
    caller: Writer,
    now: Now,
    response: Response,
) -> DealView:
    deal = await find_to_change(session, deal_id, caller, expected)
    demand_reason(given.reason, (await policies.current(session, RefusalPolicy)).body.codes())
    await outbox.add(session, deal.lose(given.reason, closed_at=given.closed_at or now, at=now))
    return told(deal, response)


@routes.post(
    "/deals/{deal_id}/reverse",
    responses=problems(*_FOUND, DealNotWon, ReturnTooLarge),
    summary="Give money back, wholly or in part; several times up to the amount",
)
async def reverse_deal(
    deal_id: UUID,
    given: ReverseDeal,
    expected: IfMatch,
    session: Session,
    caller: Writer,
    now: Now,
    response: Response,
) -> DealView:
    deal = await find_to_change(session, deal_id, caller, expected)
    event = deal.reverse(given.amount_minor, reason=given.reason, at=now)
    session.add(
        Reversal(
            id=event.reversal_id,
            deal_id=deal.id,
            amount_minor=event.amount_minor,
            is_full=event.is_full,
            reason=given.reason,
            reversed_at=now,
            reversed_by=caller.subject,
        )
    )
    await outbox.add(session, event)
    return told(deal, response)
