"""HTTP in: what people do with a lead."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends

from libs.shared.auth import Principal, Role, require
from libs.shared.http import Int32, Now, Request, Session, Text2000, problems, router
from services.routing import handing_over
from services.routing.handing_over import LeadNotFound, ManagerInactive, ManagerNotFound
from services.routing.lead import (
    ClaimWindowClosed,
    LeadClaimedAlready,
    LeadEnded,
    LeadNotClaimed,
    LeadNotQueued,
    LeadOfferedToAnother,
    OfferStale,
)
from services.routing.leads_api import LeadView, NotYourself, acting_manager, lead_view

routes = router(prefix="/v1/leads/{lead_id}", tags=["leads"])

Worker = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR))]
Supervisor = Annotated[Principal, Depends(require(Role.SUPERVISOR))]
NOT_YOURS = (LeadNotFound, LeadOfferedToAnother, OfferStale, LeadEnded, NotYourself)


class ClaimLead(Request):
    """Take the lead you were offered; `manager_id` only for a supervisor who acts for somebody."""

    epoch: Int32
    manager_id: UUID | None = None


class ReleaseLead(Request):
    """Give a lead back."""

    epoch: Int32
    reason: Text2000
    manager_id: UUID | None = None


class TakeLead(Request):
    """Take a lead out of the common queue."""

    manager_id: UUID | None = None


class AssignLead(Request):
    """Hand a lead to somebody."""

    manager_id: UUID
    reason: Text2000


class DeclineLead(Request):
    """Refuse the lead you were offered."""

    epoch: Int32
    reason: Text2000
    manager_id: UUID | None = None


class TransferLead(Request):
    """Pass your lead on to a colleague."""

    epoch: Int32
    to: UUID
    reason: Text2000
    manager_id: UUID | None = None


class TakeOverLead(Request):
    """Give a lead to a manager for good; nobody named: to yourself."""

    reason: Text2000
    manager_id: UUID | None = None


class ConvertLead(Request):
    """Make a deal of your lead."""

    epoch: Int32
    deal_id: UUID | None = None
    manager_id: UUID | None = None


class CloseLead(Request):
    """End a lead without a deal; `epoch` where a manager closes their own."""

    reason: Literal["spam", "error", "duplicate", "lost"]
    epoch: Int32 | None = None


@routes.post(
    "/claim",
    response_model=LeadView,
    responses=problems(*NOT_YOURS, ClaimWindowClosed),
    summary="Take the lead you were offered, while its window is open",
)
async def claim_lead(
    lead_id: UUID, wish: ClaimLead, session: Session, user: Worker, now: Now
) -> LeadView:
    by = acting_manager(user, wish.manager_id)
    lead = await handing_over.claim(session, lead_id, by=by, epoch=wish.epoch, now=now)
    return lead_view(lead)


@routes.post(
    "/release",
    response_model=LeadView,
    responses=problems(*NOT_YOURS),
    summary="Give a lead back; it goes to the next manager",
)
async def release_lead(
    lead_id: UUID, wish: ReleaseLead, session: Session, user: Worker, now: Now
) -> LeadView:
    by = acting_manager(user, wish.manager_id)
    lead = await handing_over.release(
        session, lead_id, by=by, epoch=wish.epoch, reason=wish.reason, now=now
    )
    return lead_view(lead)


@routes.post(
    "/take",
    response_model=LeadView,
    responses=problems(LeadNotFound, LeadNotQueued, ManagerNotFound, ManagerInactive, NotYourself),
    summary="Take a lead out of the common queue",
)
async def take_lead(
    lead_id: UUID, wish: TakeLead, session: Session, user: Worker, now: Now
) -> LeadView:
    by = acting_manager(user, wish.manager_id)
    return lead_view(await handing_over.take(session, lead_id, by=by, now=now))


@routes.post(
    "/assign",
    response_model=LeadView,
    responses=problems(LeadNotFound, LeadEnded, ManagerNotFound, ManagerInactive),
    summary="Hand a lead to a manager of your choice",
)
async def assign_lead(
    lead_id: UUID, wish: AssignLead, session: Session, user: Supervisor, now: Now
) -> LeadView:
    lead = await handing_over.assign(
        session, lead_id, to=wish.manager_id, reason=wish.reason, by=user.subject, now=now
    )
    return lead_view(lead)


@routes.post(
    "/decline",
    response_model=LeadView,
    responses=problems(*NOT_YOURS, LeadClaimedAlready),
    summary="Refuse the lead you were offered; it goes to the next manager",
)
async def decline_lead(
    lead_id: UUID, wish: DeclineLead, session: Session, user: Worker, now: Now
) -> LeadView:
    by = acting_manager(user, wish.manager_id)
    lead = await handing_over.decline(
        session, lead_id, by=by, epoch=wish.epoch, reason=wish.reason, now=now
    )
    return lead_view(lead)


@routes.post(
    "/transfer",
    response_model=LeadView,
    responses=problems(*NOT_YOURS, ManagerNotFound, ManagerInactive),
    summary="Pass your lead on to a colleague, who has to claim it",
)
async def transfer_lead(
    lead_id: UUID, wish: TransferLead, session: Session, user: Worker, now: Now
) -> LeadView:
    by = acting_manager(user, wish.manager_id)
    lead = await handing_over.transfer(
        session, lead_id, by=by, epoch=wish.epoch, to=wish.to, reason=wish.reason, now=now
    )
    return lead_view(lead)


@routes.post(
    "/take-over",
    response_model=LeadView,
    responses=problems(LeadNotFound, LeadEnded, ManagerNotFound, ManagerInactive, NotYourself),
    summary="Take a lead from whoever holds it, as a supervisor",
)
async def take_over_lead(
    lead_id: UUID, wish: TakeOverLead, session: Session, user: Supervisor, now: Now
) -> LeadView:
    to = acting_manager(user, wish.manager_id)
    lead = await handing_over.take_over(
        session, lead_id, to=to, reason=wish.reason, by=user.subject, now=now
    )
    return lead_view(lead)


@routes.post(
    "/convert",
    response_model=LeadView,
    responses=problems(*NOT_YOURS, LeadNotClaimed),
    summary="Make a deal of the lead you claimed",
)
async def convert_lead(
    lead_id: UUID, wish: ConvertLead, session: Session, user: Worker, now: Now
) -> LeadView:
    by = acting_manager(user, wish.manager_id)
    lead = await handing_over.convert(
        session, lead_id, by=by, epoch=wish.epoch, deal_id=wish.deal_id, now=now
    )
    return lead_view(lead)


@routes.post(
    "/close",
    response_model=LeadView,
    responses=problems(*NOT_YOURS),
    summary="End a lead without a deal: spam, a mistake, a duplicate, lost",
)
async def close_lead(
    lead_id: UUID, wish: CloseLead, session: Session, user: Worker, now: Now
) -> LeadView:
    by = None if user.has(Role.SUPERVISOR, Role.ADMIN) else acting_manager(user, None)
    lead = await handing_over.close(
        session, lead_id, by=by, epoch=wish.epoch, reason=wish.reason, now=now
    )
    return lead_view(lead)
