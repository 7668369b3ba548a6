"""HTTP in: leads, their offers, claims, the common queue and the floor."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel
from sqlalchemy import func, select, tuple_
from starlette.responses import Response

from libs.shared.auth import Principal, Role, require
from libs.shared.errors import Forbidden
from libs.shared.http import (
    Cursor,
    CursorText,
    Int32,
    Limit,
    Now,
    Page,
    Request,
    Session,
    Text2000,
    page_of,
    problems,
    router,
    set_etag,
)
from services.routing import handing_over
from services.routing.handing_over import (
    LeadNotFound,
    ManagerInactive,
    ManagerNotFound,
    find_lead,
)
from services.routing.models import (
    ClaimWindowClosed,
    Lead,
    LeadNotQueued,
    LeadOfferedToAnother,
    Manager,
    Offer,
    OfferStale,
)

routes = router(prefix="/v1", tags=["leads"])

Anybody = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR, Role.INTEGRATION))]
Worker = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR))]
Supervisor = Annotated[Principal, Depends(require(Role.SUPERVISOR))]
State = Literal["waiting", "offered", "claimed", "queued"]


class NotYourself(Forbidden):
    """A manager acts for themself only; name another one as a supervisor."""

    code = "not-yourself"
    ru = "Менеджер действует только от своего имени."


class LeadView(BaseModel):
    """A lead in flight; `epoch` is what a claim must name."""

    id: UUID
    client_id: UUID
    source: str
    channel: str
    state: State
    manager_id: UUID | None
    epoch: int
    received_at: datetime
    due_at: datetime | None
    claimed_at: datetime | None


class OfferView(BaseModel):
    """One offer, and why this manager got it."""

    epoch: int
    manager_id: UUID
    offered_at: datetime
    claim_until: datetime
    why: str
    ended_at: datetime | None
    ended_how: str | None


class LeadStory(LeadView):
    """A lead with everything that was done with it."""

    offers: list[OfferView]


class FloorLine(BaseModel):
    """One manager's leads."""

    manager_id: UUID
    name: str
    offered: int
    claimed: int


class Floor(BaseModel):
    """The floor as it is now."""

    waiting: int
    queued: int
    managers: list[FloorLine]


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


@routes.get("/leads", response_model=Page[LeadView], summary="List leads, newest first")
async def list_leads(
    session: Session,
    _user: Anybody,
    state: State | None = None,
    manager_id: UUID | None = None,
    cursor: CursorText = None,
    limit: Limit = 50,
) -> Page[LeadView]:
    filters = {"state": state, "manager_id": manager_id}
    after = Cursor.decode(cursor, tuple[datetime, UUID], filters)
    query = select(Lead)
    if state is not None:
        query = query.where(Lead.state == state)
    if manager_id is not None:
        query = query.where(Lead.manager_id == manager_id)
    if after:
        query = query.where(tuple_(Lead.received_at, Lead.lead_id) < after)
    query = query.order_by(Lead.received_at.desc(), Lead.lead_id.desc()).limit(limit + 1)
    return page_of(
        (await session.scalars(query)).all(),
        limit=limit,
        view=_view,
        sort_values=lambda lead: [lead.received_at, lead.lead_id],
        filters=filters,
    )


@routes.get("/queue", response_model=list[LeadView], summary="The common queue, oldest first")
async def show_common_queue(session: Session, _user: Anybody, limit: Limit = 50) -> list[LeadView]:
    query = select(Lead).where(Lead.state == "queued")
    query = query.order_by(Lead.received_at, Lead.lead_id).limit(limit)
    return [_view(lead) for lead in await session.scalars(query)]


@routes.get("/floor", response_model=Floor, summary="Who holds how many leads now")
async def show_floor(session: Session, _user: Supervisor) -> Floor:
    counts = (
        await session.execute(
            select(Lead.state, Lead.manager_id, func.count()).group_by(Lead.state, Lead.manager_id)
        )
    ).all()
    held = {(manager, state): number for state, manager, number in counts}
    managers = await session.scalars(
        select(Manager).where(Manager.is_active).order_by(Manager.name, Manager.manager_id)
    )
    return Floor(
        waiting=held.get((None, "waiting"), 0),
        queued=held.get((None, "queued"), 0),
        managers=[
            FloorLine(
                manager_id=m.manager_id,
                name=m.name,
                offered=held.get((m.manager_id, "offered"), 0),
                claimed=held.get((m.manager_id, "claimed"), 0),
            )
            for m in managers
        ],
    )


@routes.get(
    "/leads/{lead_id}",
    response_model=LeadStory,
    responses=problems(LeadNotFound),
    summary="A lead and all its offers: why him?",
)
async def show_lead(
    lead_id: UUID, session: Session, _user: Anybody, response: Response
) -> LeadStory:
    lead = await find_lead(session, lead_id)
    set_etag(response, lead.epoch)
    offers = await session.scalars(
        select(Offer).where(Offer.lead_id == lead_id).order_by(Offer.epoch)
    )
    told = [OfferView.model_validate(offer, from_attributes=True) for offer in offers]
    return LeadStory(**_view(lead).model_dump(), offers=told)


@routes.post(
    "/leads/{lead_id}/claim",
    response_model=LeadView,
    responses=problems(
        LeadNotFound, LeadOfferedToAnother, OfferStale, ClaimWindowClosed, NotYourself
    ),
    summary="Take the lead you were offered, while its window is open",
)
async def claim_lead(
    lead_id: UUID, wish: ClaimLead, session: Session, user: Worker, now: Now
) -> LeadView:
    by = acting_manager(user, wish.manager_id)
    lead = await handing_over.claim(session, lead_id, by=by, epoch=wish.epoch, now=now)
    return _view(lead)


@routes.post(
    "/leads/{lead_id}/release",
    response_model=LeadView,
    responses=problems(LeadNotFound, LeadOfferedToAnother, OfferStale, NotYourself),
    summary="Give a lead back; it goes to the next manager",
)
async def release_lead(
    lead_id: UUID, wish: ReleaseLead, session: Session, user: Worker, now: Now
) -> LeadView:
    by = acting_manager(user, wish.manager_id)
    lead = await handing_over.release(
        session, lead_id, by=by, epoch=wish.epoch, reason=wish.reason, now=now
    )
    return _view(lead)


@routes.post(
    "/leads/{lead_id}/take",
    response_model=LeadView,
    responses=problems(LeadNotFound, LeadNotQueued, ManagerNotFound, ManagerInactive, NotYourself),
    summary="Take a lead out of the common queue",
)
async def take_lead(
    lead_id: UUID, wish: TakeLead, session: Session, user: Worker, now: Now
) -> LeadView:
    by = acting_manager(user, wish.manager_id)
    return _view(await handing_over.take(session, lead_id, by=by, now=now))


@routes.post(
    "/leads/{lead_id}/assign",
    response_model=LeadView,
    responses=problems(LeadNotFound, ManagerNotFound, ManagerInactive),
    summary="Hand a lead to a manager of your choice",
)
async def assign_lead(
    lead_id: UUID, wish: AssignLead, session: Session, user: Supervisor, now: Now
) -> LeadView:
    lead = await handing_over.assign(
        session, lead_id, to=wish.manager_id, reason=wish.reason, by=user.subject, now=now
    )
    return _view(lead)


def acting_manager(user: Principal, named: UUID | None) -> UUID:
    """For whom the caller acts: a manager for themself, a supervisor for whom they name.

    Raises:
        NotYourself: A manager named somebody else, or a supervisor nobody.
    """
    if named is None or named == user.manager_id:
        if user.manager_id is None:
            raise NotYourself("Name the manager you act for")
        return user.manager_id
    if not user.has(Role.SUPERVISOR, Role.ADMIN):
        raise NotYourself
    return named


def _view(lead: Lead) -> LeadView:
    return LeadView.model_validate(
        {
            **{name: getattr(lead, name) for name in LeadView.model_fields if name != "id"},
            "id": lead.lead_id,
        }
    )
