"""HTTP in: managers and their shifts."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel
from sqlalchemy import or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared import audit
from libs.shared.auth import Principal, Role, require
from libs.shared.calendars import Calendar
from libs.shared.errors import Conflict, Invalid, PreconditionFailed
from libs.shared.http import (
    Cursor,
    CursorText,
    Flag,
    IfMatch,
    Instant,
    Limit,
    Now,
    Page,
    Request,
    Session,
    Text200,
    demand_version,
    page_of,
    problems,
    router,
    set_etag,
)
from libs.shared.ids import new_id
from services.routing.handing_over import ManagerInactive, ManagerNotFound, find_manager
from services.routing.leads_api import NotYourself, acting_manager
from services.routing.models import Manager, Shift
from services.routing.shifts import DRAIN_QUEUE, is_open, next_opening

routes = router(prefix="/v1/managers", tags=["managers"])

Anybody = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR, Role.INTEGRATION))]
Supervisor = Annotated[Principal, Depends(require(Role.SUPERVISOR))]
Worker = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR))]


class ManagerExists(Conflict):
    """There is a manager with this id already."""

    code = "manager-exists"
    ru = "Менеджер с таким идентификатором уже есть."


class ShiftImpossible(Invalid):
    """A shift ends after it begins and is not over yet."""

    code = "shift-impossible"
    ru = "Смена должна кончаться позже начала и ещё не закончиться."


class AddManager(Request):
    """A manager who may be offered leads; `id` where another system has given one."""

    name: Text200
    id: UUID | None = None
    calendar: Calendar | None = None


class ChangeManager(Request):
    """What changes; members that are left out stay."""

    name: Text200 | None = None
    is_active: Flag | None = None
    calendar: Calendar | None = None


class PlanShift(Request):
    """A shift that is planned ahead."""

    starts_at: Instant
    ends_at: Instant


class ChangeShift(Request):
    """Begin or end your shift now."""


class ManagerView(BaseModel):
    """A manager; `is_on_shift` holds for now."""

    id: UUID
    version: int
    name: str
    is_active: bool
    is_on_shift: bool
    calendar: Calendar | None
    created_at: datetime


class ShiftView(BaseModel):
    """A shift; open-ended while `ends_at` is null."""

    id: UUID
    manager_id: UUID
    starts_at: datetime
    ends_at: datetime | None


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
    calendar = wish.calendar.model_dump(mode="json") if wish.calendar else None
    manager = Manager(
        manager_id=manager_id,
        name=wish.name,
        is_active=True,
        calendar=calendar,
        last_turn=0,
        created_at=now,
        version=1,
        due_at=next_opening(calendar, now),
    )
    session.add(manager)
    await session.flush()
    await _note(session, "manager.added", manager, user, now)
    if is_open(calendar, now):
        await _drain_queue(session, now)
    response.headers["Location"] = f"/v1/managers/{manager_id}"
    set_etag(response, manager.version)
    return _view(manager, is_open(calendar, now))


@routes.get("", response_model=Page[ManagerView], summary="List managers, by id")
async def list_managers(
    session: Session, _user: Anybody, now: Now, cursor: CursorText = None, limit: Limit = 50
) -> Page[ManagerView]:
    after = Cursor.decode(cursor, tuple[UUID])
    query = select(Manager)
    if after:
        query = query.where(Manager.manager_id > after[0])
    managers = (await session.scalars(query.order_by(Manager.manager_id).limit(limit + 1))).all()
    working = await _with_shift(session, [m.manager_id for m in managers], now)
    return page_of(
        managers,
        limit=limit,
        view=lambda m: _view(m, m.manager_id in working or is_open(m.calendar, now)),
        sort_values=lambda m: [m.manager_id],
    )


@routes.get(
    "/{manager_id}",
    response_model=ManagerView,
    responses=problems(ManagerNotFound),
    summary="One manager",
)
async def show_manager(
    manager_id: UUID, session: Session, _user: Anybody, now: Now, response: Response
) -> ManagerView:
    manager = await find_manager(session, manager_id)
    set_etag(response, manager.version)
    return await _shown(session, manager, now)


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
    changed = wish.model_dump(mode="json", exclude_unset=True)
    for name in changed.keys() & {"name", "is_active"}:
        if changed[name] is not None:
            setattr(manager, name, changed[name])
    if "calendar" in changed:
        manager.calendar = changed["calendar"]
        manager.due_at = next_opening(manager.calendar, now)
    manager.version += 1
    await session.flush()
    await _note(session, "manager.changed", manager, user, now)
    shown = await _shown(session, manager, now)
    if shown.is_on_shift and manager.is_active:
        await _drain_queue(session, now)
    set_etag(response, manager.version)
    return shown


@routes.post(
    "/{manager_id}/shifts",
    response_model=ShiftView,
    status_code=201,
    responses=problems(ManagerNotFound, ManagerInactive, ShiftImpossible),
    summary="Plan a shift",
)
async def plan_shift(
    manager_id: UUID, wish: PlanShift, session: Session, _user: Supervisor, now: Now
) -> ShiftView:
    await _working(session, manager_id)
    if wish.ends_at <= max(wish.starts_at, now):
        raise ShiftImpossible(pointer="/ends_at")
    shift = Shift(
        shift_id=new_id(),
        manager_id=manager_id,
        starts_at=wish.starts_at,
        ends_at=wish.ends_at,
        due_at=wish.starts_at if wish.starts_at > now else None,
    )
    session.add(shift)
    await session.flush()
    if shift.due_at is None:
        await _drain_queue(session, now)
    return _shift_view(shift)


@routes.post(
    "/{manager_id}/shift/start",
    response_model=ShiftView,
    responses=problems(ManagerNotFound, ManagerInactive, NotYourself),
    summary="Come on shift now; the common queue is offered again",
)
async def start_shift(
    manager_id: UUID, _wish: ChangeShift, session: Session, user: Worker, now: Now
) -> ShiftView:
    acting_manager(user, manager_id)
    await _working(session, manager_id)
    running = await _running_shift(session, manager_id, now)
    if running is not None:
        return _shift_view(running)
    shift = Shift(
        shift_id=new_id(), manager_id=manager_id, starts_at=now, ends_at=None, due_at=None
    )
    session.add(shift)
    await session.flush()
    await _drain_queue(session, now)
    return _shift_view(shift)


@routes.post(
    "/{manager_id}/shift/end",
    response_model=ManagerView,
    responses=problems(ManagerNotFound, NotYourself),
    summary="Go off shift now; nothing more is offered",
)
async def end_shift(
    manager_id: UUID, _wish: ChangeShift, session: Session, user: Worker, now: Now
) -> ManagerView:
    acting_manager(user, manager_id)
    manager = await find_manager(session, manager_id, lock=True)
    await session.execute(
        update(Shift)
        .where(
            Shift.manager_id == manager_id,
            Shift.starts_at < now,
            or_(Shift.ends_at.is_(None), Shift.ends_at > now),
        )
        .values(ends_at=now)
    )
    return await _shown(session, manager, now)


async def _working(session: AsyncSession, manager_id: UUID) -> None:
    if not (await find_manager(session, manager_id, lock=True)).is_active:
        raise ManagerInactive(manager_id=str(manager_id))


async def _running_shift(session: AsyncSession, manager_id: UUID, now: datetime) -> Shift | None:
    return await session.scalar(
        select(Shift).where(
            Shift.manager_id == manager_id,
            Shift.starts_at <= now,
            or_(Shift.ends_at.is_(None), Shift.ends_at > now),
        )
    )


async def _with_shift(session: AsyncSession, managers: list[UUID], now: datetime) -> set[UUID]:
    found = await session.scalars(
        select(Shift.manager_id).where(
            Shift.manager_id.in_(managers),
            Shift.starts_at <= now,
            or_(Shift.ends_at.is_(None), Shift.ends_at > now),
        )
    )
    return set(found)


async def _shown(session: AsyncSession, manager: Manager, now: datetime) -> ManagerView:
    working = await _with_shift(session, [manager.manager_id], now)
    return _view(manager, bool(working) or is_open(manager.calendar, now))


async def _drain_queue(session: AsyncSession, now: datetime) -> None:
    await session.execute(text(DRAIN_QUEUE.format(now=":now")), {"now": now})


async def _note(
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


def _view(manager: Manager, is_on_shift: bool) -> ManagerView:
    return ManagerView(
        id=manager.manager_id,
        version=manager.version,
        name=manager.name,
        is_active=manager.is_active,
        is_on_shift=is_on_shift and manager.is_active,
        calendar=Calendar.model_validate(manager.calendar) if manager.calendar else None,
        created_at=manager.created_at,
    )


def _shift_view(shift: Shift) -> ShiftView:
    return ShiftView(
        id=shift.shift_id,
        manager_id=shift.manager_id,
        starts_at=shift.starts_at,
        ends_at=shift.ends_at,
    )
