"""HTTP in: the queue of whom to call, the day of a manager, clients taken in hand."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query
from fastapi import Request as HttpRequest
from pydantic import BaseModel, TypeAdapter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared.auth import Principal, Role, require
from libs.shared.clock import Clock
from libs.shared.errors import Conflict, Forbidden
from libs.shared.http import CalendarDay, Int32, Limit, Now, Request, Session, problems, router
from libs.shared.live import EventSourceResponse, ServerSentEvent, views
from libs.shared.policies import current
from services.scoring.rules_in_force import prepared
from services.scoring.touches.budget import Budget, budget_of
from services.scoring.touches.leasing import (
    LeasedByAnother,
    LeaseOver,
    NotInQueue,
    release,
    take,
    take_next,
)
from services.scoring.touches.policy import QueuePolicy
from services.scoring.touches.queue import QueueEntry, State, entry_of, whom_to_call
from services.scoring.touches.sla_report import SlaLine, sla_report

routes = router(prefix="/v1", tags=["queue"])

SEE_ALL = (Role.SUPERVISOR, Role.ANALYST, Role.MARKETER, Role.INTEGRATION)
Looker = Annotated[Principal, Depends(require(Role.MANAGER, *SEE_ALL))]
Caller = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR, Role.INTEGRATION))]
Overseer = Annotated[Principal, Depends(require(*SEE_ALL))]
Segment = Annotated[str | None, Query(max_length=63)]

_PAGE = TypeAdapter(list[QueueEntry])
TOP = 20  # of the queue, on the screen that a day begins with


class QueueNotYours(Forbidden):
    """This is another manager's queue."""

    code = "queue-not-yours"
    ru = "Это очередь другого менеджера."


class ManagerUnnamed(Forbidden):
    """Say whose queue it is: the token names no manager."""

    code = "manager-unnamed"
    ru = "Укажите, чья это очередь: в токене нет менеджера."


class BudgetUsedUp(Conflict):
    """As many clients were called today as fit into the time for the base."""

    code = "budget-used-up"
    ru = "Время на работу с базой на сегодня израсходовано."


class TakeNext(Request):
    """Give me somebody to call.

    Attributes:
        done_with: Whom I have just called: not them again.
        manager_id: For whom, if the caller is not a manager.
    """

    done_with: UUID | None = None
    manager_id: UUID | None = None


class TakeClient(Request):
    """I call this client."""

    manager_id: UUID | None = None


class ReleaseClient(Request):
    """I do not call this client after all."""

    lease_no: Int32
    manager_id: UUID | None = None


class InHand(BaseModel):
    """Whom a manager has in hand.

    Attributes:
        client: Null when there is nobody to call.
        lease_no: What a release has to name.
    """

    client: QueueEntry | None
    lease_no: int | None
    leased_until: datetime | None
    budget: Budget


class Waiting(BaseModel):
    """How many wait in one segment."""

    segment: str
    priority: int
    due: int
    overdue: int
    overdue_minor: int


class Day(BaseModel):
    """The screen that a manager's day begins with.

    Attributes:
        waiting: By segment, the most important first.
        first: The beginning of the queue.
    """

    manager_id: UUID
    budget: Budget
    due: int
    overdue: int
    waiting: list[Waiting]
    first: list[QueueEntry]


class Base(BaseModel):
    """How the whole base stands.

    Attributes:
        unsettled: Clients who are being planned anew, or whose day turns at this moment.
        planned: The day of their next touch is still to come.
    """

    unsettled: int
    planned: int
    due: int
    overdue: int
    waiting: list[Waiting]


class LiveQueue(BaseModel):
    """What the live stream sends when the queue has changed."""

    due: int
    overdue: int
    waiting: list[Waiting]
    first: list[QueueEntry]


@routes.get(
    "/queue",
    response_model=list[QueueEntry],
    responses=problems(QueueNotYours),
    summary="Whom to call first, and why",
)
async def show_queue(
    session: Session,
    caller: Looker,
    now: Now,
    manager_id: UUID | None = None,
    segment: Segment = None,
    state: State | None = None,
    limit: Limit = 50,
) -> Response:
    entries = await whom_to_call(
        session,
        await prepared(session),
        (await current(session, QueuePolicy)).body,
        now=now,
        limit=limit,
        manager_id=_whose(caller, manager_id),
        segment=segment,
        state=state,
    )
    # Written out at once: FastAPI would judge every entry again.
    return Response(_PAGE.dump_json(entries), media_type="application/json")


@routes.get("/queue/summary", summary="How many clients wait, by segment, in the whole base")
async def show_summary(session: Session, _caller: Overseer, now: Now) -> Base:
    waiting = await _waiting(session, None, (await current(session, QueuePolicy)).body, [])
    standing = (await session.execute(_STANDING, {"now": now})).one()
    return Base(
        unsettled=standing.unsettled,
        planned=standing.planned,
        **_sums(waiting),
        waiting=waiting,
    )


@routes.get(
    "/queue/live",
    response_class=EventSourceResponse,
    summary="The beginning of the queue, again whenever it has changed (SSE)",
)
async def stream_queue(
    request: HttpRequest, caller: Looker, manager_id: UUID | None = None
) -> AsyncIterator[ServerSentEvent]:
    whose = _whose(caller, manager_id)

    async def look(session: AsyncSession, clock: Clock) -> LiveQueue:
        rules, policy = await prepared(session), (await current(session, QueuePolicy)).body
        first = await whom_to_call(
            session, rules, policy, now=clock.now(), limit=TOP, manager_id=whose
        )
        muted = policy.muted_on(rules.day_of(clock.now()))
        waiting = await _waiting(session, whose, policy, muted)
        return LiveQueue(**_sums(waiting), waiting=waiting, first=first)

    async for event in views(request, look, event="queue"):
        yield event


@routes.get(
    "/day",
    responses=problems(QueueNotYours, ManagerUnnamed),
    summary="A manager's day in one call: queue, overdue touches, time for the base",
)
async def show_day(
    session: Session, caller: Looker, now: Now, manager_id: UUID | None = None
) -> Day:
    manager = _who(caller, manager_id)
    rules, policy = await prepared(session), (await current(session, QueuePolicy)).body
    waiting = await _waiting(session, manager, policy, policy.muted_on(rules.day_of(now)))
    return Day(
        manager_id=manager,
        budget=await budget_of(session, manager, policy, rules, now),
        **_sums(waiting),
        waiting=waiting,
        first=await whom_to_call(session, rules, policy, now=now, limit=TOP, manager_id=manager),
    )


@routes.post(
    "/queue/next",
    responses=problems(QueueNotYours, ManagerUnnamed, BudgetUsedUp),
    summary="Take the next client in hand; nobody else gets them meanwhile",
)
async def take_next_client(wish: TakeNext, session: Session, caller: Caller, now: Now) -> InHand:
    manager = _who(caller, wish.manager_id)
    rules, policy = await prepared(session), (await current(session, QueuePolicy)).body
    budget = await budget_of(session, manager, policy, rules, now)
    if policy.ends_with_the_budget and budget.is_used_up:
        raise BudgetUsedUp(touches=budget.touches, done=budget.done)
    today = rules.day_of(now)
    lease = await take_next(
        session, manager, policy, now=now, today=today, done_with=wish.done_with
    )
    if lease is None:
        return InHand(client=None, lease_no=None, leased_until=None, budget=budget)
    return InHand(
        client=await entry_of(session, lease.client_id, rules, policy, now),
        lease_no=lease.lease_no,
        leased_until=lease.leased_until,
        budget=budget,
    )


@routes.post(
    "/queue/{client_id}/take",
    responses=problems(QueueNotYours, ManagerUnnamed, NotInQueue, LeasedByAnother),
    summary="Take a certain client of the queue in hand",
)
async def take_client(
    client_id: UUID, wish: TakeClient, session: Session, caller: Caller, now: Now
) -> InHand:
    manager = _who(caller, wish.manager_id)
    rules, policy = await prepared(session), (await current(session, QueuePolicy)).body
    lease = await take(session, client_id, manager, policy, now=now)
    return InHand(
        client=await entry_of(session, client_id, rules, policy, now),
        lease_no=lease.lease_no,
        leased_until=lease.leased_until,
        budget=await budget_of(session, manager, policy, rules, now),
    )


@routes.post(
    "/queue/{client_id}/release",
    status_code=204,
    responses=problems(QueueNotYours, ManagerUnnamed, NotInQueue, LeaseOver),
    summary="Give a client back into the queue",
)
async def release_client(
    client_id: UUID, wish: ReleaseClient, session: Session, caller: Caller, now: Now
) -> None:
    manager = _who(caller, wish.manager_id)
    await release(session, client_id, manager, lease_no=wish.lease_no, now=now)


@routes.get("/reports/touch-sla", summary="Touches kept, late and overdue, by segment and manager")
async def show_sla_report(
    session: Session, _caller: Overseer, begin: CalendarDay, end: CalendarDay
) -> list[SlaLine]:
    return await sla_report(session, begin=begin, end=end)


def _whose(caller: Principal, wanted: UUID | None) -> UUID | None:
    """Whose queue may be looked at: managers have their own, others any or everybody's.

    Raises:
        QueueNotYours: A manager asks for another's.
    """
    if caller.has(*SEE_ALL):
        return wanted
    return _who(caller, wanted)


def _who(caller: Principal, wanted: UUID | None) -> UUID:
    """The manager that is meant.

    Raises:
        QueueNotYours: A manager asks for another.
        ManagerUnnamed: Neither the request nor the token says.
    """
    if not caller.has(*SEE_ALL) and wanted not in (None, caller.manager_id):
        raise QueueNotYours
    manager = wanted or caller.manager_id
    if manager is None:
        raise ManagerUnnamed
    return manager


_WAITING = text("""
    SELECT segment, priority, count(*) FILTER (WHERE state = 'due') AS due,
        count(*) FILTER (WHERE state = 'overdue') AS overdue,
        coalesce(sum(value_minor) FILTER (WHERE state = 'overdue'), 0)::bigint AS overdue_minor
    FROM touch_plans WHERE state IN ('due', 'overdue') AND (CAST(:manager_id AS uuid) IS NULL
        OR queue_of = :manager_id OR (owner_id IS NULL AND :common))
        AND segment <> ALL(CAST(:muted AS text[]))
    GROUP BY segment, priority ORDER BY priority, segment
""")


_STANDING = text("""
    SELECT (SELECT count(*) FROM touch_changes)
        + (SELECT count(*) FROM touch_replans WHERE due_at IS NOT NULL)
        + count(*) FILTER (WHERE due_at <= :now) AS unsettled,
        count(*) FILTER (WHERE state = 'waiting') AS planned FROM touch_plans
""")


async def _waiting(
    session: AsyncSession, manager_id: UUID | None, policy: QueuePolicy, muted: list[str]
) -> list[Waiting]:
    given = {"manager_id": manager_id, "common": policy.common_queue, "muted": muted}
    rows = await session.execute(_WAITING, given)
    return [Waiting.model_validate(row, from_attributes=True) for row in rows]


def _sums(waiting: list[Waiting]) -> dict[str, int]:
    return {
        "due": sum(line.due for line in waiting),
        "overdue": sum(line.overdue for line in waiting),
    }
