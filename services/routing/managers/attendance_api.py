"""HTTP in: when managers are there: shifts, pauses, absences, signs of life."""

from datetime import datetime, time, timedelta
from typing import Annotated
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import Depends
from pydantic import BaseModel
from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared.auth import Principal, Role, require
from libs.shared.calendars import Calendar
from libs.shared.errors import Invalid, NotFound
from libs.shared.http import Flag, Instant, Now, Request, Session, Text200, problems, router
from libs.shared.ids import new_id
from libs.shared.policies import current
from services.routing.choosing.presence import HERE, NAMES
from services.routing.handing_over import ManagerInactive, ManagerNotFound, find_manager
from services.routing.leads_api import NotYourself, acting_manager
from services.routing.managers.api import (
    ManagerView,
    look_at_again,
    manager_view,
    note_change,
    working_manager,
)
from services.routing.models import Absence, Manager, PastPause, Shift
from services.routing.policy import PresencePolicy

routes = router(prefix="/v1/managers", tags=["managers"])

Anybody = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR, Role.INTEGRATION))]
Supervisor = Annotated[Principal, Depends(require(Role.SUPERVISOR))]
Worker = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR))]


class ShiftImpossible(Invalid):
    """A shift ends after it begins and is not over yet."""

    code = "shift-impossible"
    ru = "Смена должна кончаться позже начала и ещё не закончиться."


class AbsenceImpossible(Invalid):
    """An absence ends after it begins and is not over yet."""

    code = "absence-impossible"
    ru = "Отсутствие должно кончаться позже начала и ещё не закончиться."


class PauseImpossible(Invalid):
    """A pause ends in the future."""

    code = "pause-impossible"
    ru = "Перерыв должен кончаться в будущем."


class AbsenceNotFound(NotFound):
    """This manager has no absence with this id."""

    code = "absence-not-found"
    ru = "Такого отсутствия у менеджера нет."


class PlanShift(Request):
    """A shift that is planned ahead."""

    starts_at: Instant
    ends_at: Instant


class ChangeShift(Request):
    """Begin or end your shift now."""


class Pause(Request):
    """A pause; without `until` it lasts until the manager resumes."""

    until: Instant | None = None


class AddAbsence(Request):
    """When a manager will not be there though their calendar has it."""

    starts_at: Instant
    ends_at: Instant
    is_sick: Flag = False
    note: Text200 | None = None


class AbsenceView(BaseModel):
    """An absence."""

    id: UUID
    manager_id: UUID
    starts_at: datetime
    ends_at: datetime
    is_sick: bool
    note: str | None


class ShiftView(BaseModel):
    """A shift; open-ended while `ends_at` is null."""

    id: UUID
    manager_id: UUID
    starts_at: datetime
    ends_at: datetime | None


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
    manager = await working_manager(session, manager_id)
    if wish.ends_at <= max(wish.starts_at, now):
        raise ShiftImpossible(pointer="/ends_at")
    shift = Shift(
        shift_id=new_id(),
        manager_id=manager_id,
        starts_at=wish.starts_at,
        ends_at=wish.ends_at,
        due_at=None,
    )
    session.add(shift)
    await look_at_again(session, manager, now)
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
    manager = await working_manager(session, manager_id)
    running = await _running_shift(session, manager_id, now)
    if running is not None:
        return _shift_view(running)
    shift = Shift(
        shift_id=new_id(), manager_id=manager_id, starts_at=now, ends_at=None, due_at=None
    )
    session.add(shift)
    manager.seen_at = now
    await look_at_again(session, manager, now)
    return _shift_view(shift)


@routes.post(
    "/{manager_id}/shift/end",
    response_model=ManagerView,
    responses=problems(ManagerNotFound, NotYourself),
    summary="Go off shift now; nothing more is offered, and what is unclaimed goes to others",
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
    await look_at_again(session, manager, now)
    return manager_view(manager)


@routes.post(
    "/{manager_id}/pause",
    response_model=ManagerView,
    responses=problems(ManagerNotFound, ManagerInactive, NotYourself, PauseImpossible),
    summary="Take a pause; `until` where it ends by itself",
)
async def pause(
    manager_id: UUID, wish: Pause, session: Session, user: Worker, now: Now
) -> ManagerView:
    acting_manager(user, manager_id)
    manager = await working_manager(session, manager_id)
    if wish.until is not None and wish.until <= now:
        raise PauseImpossible(pointer="/until")
    _keep(session, manager.end_pause(now))
    manager.paused_at, manager.paused_until = now, wish.until
    await look_at_again(session, manager, now)
    return manager_view(manager)


@routes.post(
    "/{manager_id}/resume",
    response_model=ManagerView,
    responses=problems(ManagerNotFound, NotYourself),
    summary="Be back from a pause",
)
async def resume(
    manager_id: UUID, _wish: ChangeShift, session: Session, user: Worker, now: Now
) -> ManagerView:
    acting_manager(user, manager_id)
    manager = await find_manager(session, manager_id, lock=True)
    _keep(session, manager.end_pause(now))
    await look_at_again(session, manager, now)
    return manager_view(manager)


@routes.post(
    "/{manager_id}/heartbeat",
    response_model=ManagerView,
    responses=problems(ManagerNotFound, NotYourself),
    summary="A sign of life of a manager's workplace",
)
async def heartbeat(
    manager_id: UUID, _wish: ChangeShift, session: Session, user: Worker, now: Now
) -> ManagerView:
    acting_manager(user, manager_id)
    manager = await find_manager(session, manager_id, lock=True)
    manager.seen_at = now
    # Only who comes back is news; a sign every few seconds must not offer the queue every time.
    if manager.presence == NAMES[HERE]:
        minutes = (await current(session, PresencePolicy)).body.sign_of_life_minutes
        if minutes is not None:
            due = now + timedelta(minutes=minutes)
            manager.due_at = min(due, manager.due_at or due)
        return manager_view(manager)
    await look_at_again(session, manager, now)
    return manager_view(manager)


@routes.post(
    "/{manager_id}/absences",
    response_model=AbsenceView,
    status_code=201,
    responses=problems(ManagerNotFound, ManagerInactive, AbsenceImpossible),
    summary="Note when a manager will not be there",
)
async def add_absence(
    manager_id: UUID, wish: AddAbsence, session: Session, user: Supervisor, now: Now
) -> AbsenceView:
    manager = await working_manager(session, manager_id)
    if wish.ends_at <= max(wish.starts_at, now):
        raise AbsenceImpossible(pointer="/ends_at")
    return await _absent(session, manager, wish, user, now)


@routes.post(
    "/{manager_id}/sick-today",
    response_model=AbsenceView,
    responses=problems(ManagerNotFound, ManagerInactive, NotYourself),
    summary="Be sick for the rest of the day, in the manager's own zone",
)
async def sick_today(
    manager_id: UUID, _wish: ChangeShift, session: Session, user: Worker, now: Now
) -> AbsenceView:
    acting_manager(user, manager_id)
    manager = await working_manager(session, manager_id)
    calendar = Calendar.model_validate(manager.calendar) if manager.calendar else Calendar()
    zone = ZoneInfo(calendar.zone)
    tomorrow = now.astimezone(zone).date() + timedelta(days=1)
    ends = datetime.combine(tomorrow, time(0), zone)
    wish = AddAbsence(starts_at=now, ends_at=ends, is_sick=True)
    return await _absent(session, manager, wish, user, now)


@routes.get(
    "/{manager_id}/absences",
    response_model=list[AbsenceView],
    responses=problems(ManagerNotFound),
    summary="Absences that are not over",
)
async def list_absences(
    manager_id: UUID, session: Session, _user: Anybody, now: Now
) -> list[AbsenceView]:
    await find_manager(session, manager_id)
    query = select(Absence).where(Absence.manager_id == manager_id, Absence.ends_at > now)
    rows = await session.scalars(query.order_by(Absence.starts_at).limit(500))
    return [_absence_view(row) for row in rows]


@routes.delete(
    "/{manager_id}/absences/{absence_id}",
    status_code=204,
    responses=problems(ManagerNotFound, AbsenceNotFound),
    summary="Strike out an absence",
)
async def strike_absence(
    manager_id: UUID, absence_id: UUID, session: Session, user: Supervisor, now: Now
) -> Response:
    manager = await find_manager(session, manager_id, lock=True)
    absence = await session.get(Absence, absence_id)
    if absence is None or absence.manager_id != manager_id:
        raise AbsenceNotFound(absence_id=str(absence_id))
    await session.delete(absence)
    await look_at_again(session, manager, now)
    await note_change(session, "manager.absence_struck", manager, user, now)
    return Response(status_code=204)


async def _absent(
    session: AsyncSession, manager: Manager, wish: AddAbsence, user: Principal, now: datetime
) -> AbsenceView:
    absence = Absence(absence_id=new_id(), manager_id=manager.manager_id, **wish.model_dump())
    session.add(absence)
    await look_at_again(session, manager, now)
    await note_change(session, "manager.absent", manager, user, now)
    return _absence_view(absence)


async def _running_shift(session: AsyncSession, manager_id: UUID, now: datetime) -> Shift | None:
    return await session.scalar(
        select(Shift).where(
            Shift.manager_id == manager_id,
            Shift.starts_at <= now,
            or_(Shift.ends_at.is_(None), Shift.ends_at > now),
        )
    )


def _shift_view(shift: Shift) -> ShiftView:
    return ShiftView(
        id=shift.shift_id,
        manager_id=shift.manager_id,
        starts_at=shift.starts_at,
        ends_at=shift.ends_at,
    )


def _absence_view(absence: Absence) -> AbsenceView:
    return AbsenceView(
        id=absence.absence_id,
        manager_id=absence.manager_id,
        starts_at=absence.starts_at,
        ends_at=absence.ends_at,
        is_sick=absence.is_sick,
        note=absence.note,
    )


def _keep(session: AsyncSession, pause: PastPause | None) -> None:
    if pause is not None:
        session.add(pause)
