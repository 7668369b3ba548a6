"""HTTP in: managers and their shifts."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared import audit
from libs.shared.auth import Principal, Role, require
from libs.shared.calendars import Calendar
from libs.shared.errors import Conflict, PreconditionFailed
from libs.shared.http import (
    Cursor,
    CursorText,
    Flag,
    IfMatch,
    Limit,
    Now,
    Page,
    Request,
    Session,
    Text50,
    Text200,
    Text2000,
    demand_version,
    page_of,
    problems,
    router,
    set_etag,
)
from libs.shared.ids import new_id
from libs.shared.policies import current
from services.routing.choosing.presence import HERE, NAMES
from services.routing.claim_window import end_of_window
from services.routing.handing_over import ManagerInactive, ManagerNotFound, find_manager
from services.routing.holding import bare
from services.routing.managers.attendance import look_again
from services.routing.managers.leaving import hand_over_everything
from services.routing.models import Manager
from services.routing.policy import ClaimPolicy, PresencePolicy

routes = router(prefix="/v1/managers", tags=["managers"])

Anybody = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR, Role.INTEGRATION))]
Supervisor = Annotated[Principal, Depends(require(Role.SUPERVISOR))]
Worker = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR))]


class ManagerExists(Conflict):
    """There is a manager with this id already."""

    code = "manager-exists"
    ru = "Менеджер с таким идентификатором уже есть."


Level = Annotated[int, Field(strict=True, ge=1, le=10)]
Limit100k = Annotated[int, Field(strict=True, ge=0, le=100_000)]


class AddManager(Request):
    """A manager who may be offered leads; `id` where another system has given one.

    Attributes:
        capacity: Open leads at most; null: as the policy `claims` has it.
        weight: Share in a rotation beside that of others.
        hourly_limit, daily_limit: Offers within any hour and any 24 hours.
        monthly_limit: Spread evenly: 45 a month are 2 a day.
        languages, zones: Empty: any. Zones are regions, cities or countries (ISO 3166).
        skills: Level from 1 to 10 by skill.
    """

    name: Text200
    id: UUID | None = None
    calendar: Calendar | None = None
    capacity: Limit100k | None = None
    weight: Annotated[int, Field(strict=True, ge=1, le=1000)] = 1
    hourly_limit: Limit100k | None = None
    daily_limit: Limit100k | None = None
    monthly_limit: Limit100k | None = None
    languages: Annotated[list[Text50], Field(max_length=50)] = Field(default_factory=list)
    zones: Annotated[list[Text200], Field(max_length=200)] = Field(default_factory=list)
    skills: Annotated[dict[Text50, Level], Field(max_length=200)] = Field(default_factory=dict)


class ChangeManager(Request):
    """What changes; members that are left out stay."""

    name: Text200 | None = None
    is_active: Flag | None = None
    calendar: Calendar | None = None
    capacity: Limit100k | None = None
    weight: Annotated[int, Field(strict=True, ge=1, le=1000)] | None = None
    hourly_limit: Limit100k | None = None
    daily_limit: Limit100k | None = None
    monthly_limit: Limit100k | None = None
    languages: Annotated[list[Text50], Field(max_length=50)] | None = None
    zones: Annotated[list[Text200], Field(max_length=200)] | None = None
    skills: Annotated[dict[Text50, Level], Field(max_length=200)] | None = None


_MAY_BE_NULL = frozenset(("calendar", "capacity", "hourly_limit", "daily_limit", "monthly_limit"))


class HandOver(Request):
    """To whom, in turn; nobody named: by the rules."""

    to: Annotated[list[UUID], Field(max_length=200)] = Field(default_factory=list)
    reason: Text2000


class HandedOver(BaseModel):
    """How many leads were handed over."""

    leads: int


class ManagerView(BaseModel):
    """A manager; `presence` holds for now, `is_on_shift` is true of whoever gets leads."""

    id: UUID
    version: int
    name: str
    is_active: bool
    is_on_shift: bool
    presence: Literal["here", "off_shift", "absent", "sick", "paused", "offline", "inactive"]
    calendar: Calendar | None
    capacity: int | None
    weight: int
    hourly_limit: int | None
    daily_limit: int | None
    monthly_limit: int | None
    languages: list[str]
    zones: list[str]
    skills: dict[str, int]
    paused_until: datetime | None
    seen_at: datetime | None
    created_at: datetime


@routes.post(
    "",
    response_model=ManagerView,
    status_code=201,
    responses=problems(ManagerExists),
    summary="Add a manager",
)
async def add_manager(
    wish: AddManager, session: Session, user: Supervisor, now: Now, response: Response
) -> ManagerView:
    manager_id = wish.id or new_id()
    if await session.get(Manager, manager_id) is not None:
        raise ManagerExists(manager_id=str(manager_id))
    told = wish.model_dump(mode="json", exclude={"id"})
    manager = Manager(
        manager_id=manager_id, is_active=True, created_at=now, version=1, due_at=None, **told
    )
    session.add(manager)
    await session.flush()
    await note_change(session, "manager.added", manager, user, now)
    await look_at_again(session, manager, now)
    response.headers["Location"] = f"/v1/managers/{manager_id}"
    set_etag(response, manager.version)
    return manager_view(manager)


@routes.get("", response_model=Page[ManagerView], summary="List managers, by id")
async def list_managers(
    session: Session, _user: Anybody, cursor: CursorText = None, limit: Limit = 50
) -> Page[ManagerView]:
    after = Cursor.decode(cursor, tuple[UUID])
    query = select(Manager)
    if after:
        query = query.where(Manager.manager_id > after[0])
    managers = (await session.scalars(query.order_by(Manager.manager_id).limit(limit + 1))).all()
    return page_of(managers, limit=limit, view=manager_view, sort_values=lambda m: [m.manager_id])


@routes.get(
    "/{manager_id}",
    response_model=ManagerView,
    responses=problems(ManagerNotFound),
    summary="One manager",
)
async def show_manager(
    manager_id: UUID, session: Session, _user: Anybody, response: Response
) -> ManagerView:
    manager = await find_manager(session, manager_id)
    set_etag(response, manager.version)
    return manager_view(manager)


@routes.patch(
    "/{manager_id}",
    response_model=ManagerView,
    responses=problems(ManagerNotFound, PreconditionFailed),
    summary="Change a manager",
)
async def change_manager(
    manager_id: UUID,
    wish: ChangeManager,
    expected: IfMatch,
    session: Session,
    user: Supervisor,
    now: Now,
    response: Response,
) -> ManagerView:
    manager = await find_manager(session, manager_id, lock=True)
    demand_version(expected, manager.version)
    for name, value in wish.model_dump(mode="json", exclude_unset=True).items():
        if value is not None or name in _MAY_BE_NULL:
            setattr(manager, name, value)
    manager.version += 1
    await session.flush()
    await note_change(session, "manager.changed", manager, user, now)
    await look_at_again(session, manager, now)
    set_etag(response, manager.version)
    return manager_view(manager)


@routes.post(
    "/{manager_id}/hand-over",
    response_model=HandedOver,
    responses=problems(ManagerNotFound, ManagerInactive),
    summary="Give everything that a manager holds to others: by the rules, or to whom you name",
)
async def hand_over(
    manager_id: UUID, wish: HandOver, session: Session, user: Supervisor, now: Now
) -> HandedOver:
    manager = await find_manager(session, manager_id)
    for colleague in wish.to:
        if colleague == manager_id or not (await find_manager(session, colleague)).is_active:
            raise ManagerInactive(manager_id=str(colleague))
    claims = (await current(session, ClaimPolicy)).body
    count = await hand_over_everything(
        await bare(session),
        manager_id,
        to=wish.to,
        reason=wish.reason,
        now=now,
        until=end_of_window(claims, now),
    )
    await audit.record(
        session,
        action="manager.handed_over",
        subject_type="manager",
        subject_id=str(manager.manager_id),
        details={"leads": count, "to": [str(each) for each in wish.to], "reason": wish.reason},
        at=now,
        actor=user.subject,
    )
    return HandedOver(leads=count)


async def look_at_again(session: AsyncSession, manager: Manager, now: datetime) -> None:
    policy = (await current(session, PresencePolicy)).body
    tx = await bare(session)
    await look_again(tx, [manager.manager_id], now, policy)
    await session.refresh(manager)


async def note_change(
    session: AsyncSession, action: str, manager: Manager, user: Principal, now: datetime
) -> None:
    await audit.record(
        session,
        action=action,
        subject_type="manager",
        subject_id=str(manager.manager_id),
        details={"version": manager.version, "is_active": manager.is_active},
        at=now,
        actor=user.subject,
    )


def manager_view(manager: Manager) -> ManagerView:
    return ManagerView.model_validate(
        {
            **{name: getattr(manager, name, None) for name in ManagerView.model_fields},
            "id": manager.manager_id,
            "is_on_shift": manager.presence == NAMES[HERE],
        }
    )


async def working_manager(session: AsyncSession, manager_id: UUID) -> Manager:
    manager = await find_manager(session, manager_id, lock=True)
    if not manager.is_active:
        raise ManagerInactive(manager_id=str(manager_id))
    return manager
