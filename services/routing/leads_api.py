"""HTTP in: leads, their offers, claims, the common queue and the floor."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel
from sqlalchemy import func, select
from starlette.responses import Response

from libs.shared.auth import Principal, Role, require
from libs.shared.errors import Forbidden
from libs.shared.http import (
    Cursor,
    CursorText,
    Limit,
    Page,
    Session,
    page_of,
    problems,
    router,
    set_etag,
)
from services.routing.handing_over import LeadNotFound, find_lead
from services.routing.lead import Lead
from services.routing.models import Manager, Offer

routes = router(prefix="/v1", tags=["leads"])

Anybody = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR, Role.INTEGRATION))]
Worker = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR))]
Supervisor = Annotated[Principal, Depends(require(Role.SUPERVISOR))]
State = Literal["waiting", "offered", "claimed", "queued", "muted", "converted", "closed"]


class NotYourself(Forbidden):
    """A manager acts for themself only; name another one as a supervisor."""

    code = "not-yourself"
    ru = "Менеджер действует только от своего имени."


class LeadView(BaseModel):
    """A lead in flight; `epoch` is what a claim must name.

    Attributes:
        kind: request, handoff (by a bot), complaint.
        interaction_id: What was said before, in the client's timeline.
    """

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
    is_returning: bool
    kind: str
    interaction_id: UUID | None
    alerted_at: datetime | None
    ended_at: datetime | None
    ended_because: str | None
    deal_id: UUID | None


class OfferView(BaseModel):
    """One offer, and why this manager got it."""

    epoch: int
    manager_id: UUID
    offered_at: datetime
    claim_until: datetime
    why: str
    ended_at: datetime | None
    ended_how: str | None
    ended_because: str | None
    rule: str | None
    team: str | None
    strategy: str | None


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
    after = Cursor.decode(cursor, tuple[UUID], filters)
    query = select(Lead)
    if state is not None:
        query = query.where(Lead.state == state)
    if manager_id is not None:
        query = query.where(Lead.manager_id == manager_id)
    if after:
        query = query.where(Lead.lead_id < after[0])
    query = query.order_by(Lead.lead_id.desc()).limit(limit + 1)  # ids are given as leads come
    return page_of(
        (await session.scalars(query)).all(),
        limit=limit,
        view=lead_view,
        sort_values=lambda lead: [lead.lead_id],
        filters=filters,
    )


@routes.get("/queue", response_model=list[LeadView], summary="The common queue, oldest first")
async def show_common_queue(session: Session, _user: Anybody, limit: Limit = 50) -> list[LeadView]:
    query = select(Lead).where(Lead.state == "queued")
    query = query.order_by(Lead.received_at, Lead.lead_id).limit(limit)
    return [lead_view(lead) for lead in await session.scalars(query)]


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
    return LeadStory(**lead_view(lead).model_dump(), offers=told)


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


def lead_view(lead: Lead) -> LeadView:
    return LeadView.model_validate(
        {
            **{name: getattr(lead, name) for name in LeadView.model_fields if name != "id"},
            "id": lead.lead_id,
        }
    )
