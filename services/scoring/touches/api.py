"""HTTP in: the queue of whom to call, and the day of a manager."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query
from fastapi import Request as HttpRequest
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared.auth import Principal, Role, require
from libs.shared.clock import Clock
from libs.shared.database import Connection, Database
from libs.shared.http import (
    CalendarDay,
    Db,
    Limit,
    Now,
    Session,
    answer_of,
    problems,
    router,
)
from libs.shared.live import EventSourceResponse, ServerSentEvent, views
from services.scoring.touches.budget import Budget, budget_on, touches_done
from services.scoring.touches.queue import QueueEntry, State, whom_to_call
from services.scoring.touches.sla_report import SlaLine, sla_report
from services.scoring.touches.terms import Terms, under_terms
from services.scoring.touches.whose_queue import (
    SEE_ALL,
    ManagerUnnamed,
    QueueNotYours,
    which_manager,
    whose_queue,
)

routes = router(prefix="/v1", tags=["queue"])

Looker = Annotated[Principal, Depends(require(Role.MANAGER, *SEE_ALL))]
Overseer = Annotated[Principal, Depends(require(*SEE_ALL))]
Segment = Annotated[str | None, Query(max_length=63)]

TOP = 20  # of the queue, on the screen that a day begins with


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
    database: Db,
    caller: Looker,
    now: Now,
    manager_id: UUID | None = None,
    segment: Segment = None,
    state: State | None = None,
    limit: Limit = 50,
) -> Response:
    whose = whose_queue(caller, manager_id)

    async def ask(connection: Connection, terms: Terms) -> list[dict[str, Any]] | None:
        return await whom_to_call(
            connection, terms, now=now, limit=limit, manager_id=whose, segment=segment, state=state
        )

    return answer_of(await under_terms(database, database.pool.acquire, ask))


@routes.get("/queue/summary", summary="How many clients wait, by segment, in the whole base")
async def show_summary(database: Db, _caller: Overseer, now: Now) -> Base:
    async with database.pool.acquire() as connection:
        waiting = await _waiting(connection, None, common=True, muted=[])
        standing = await connection.fetchrow(_STANDING, now)
    assert standing is not None  # noqa: S101  # an aggregate has a row
    return Base(
        unsettled=standing["unsettled"],
        planned=standing["planned"],
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
    whose = whose_queue(caller, manager_id)
    database: Database = request.app.state.database

    async def look(_session: AsyncSession, clock: Clock) -> LiveQueue:
        async def ask(connection: Connection, terms: Terms) -> LiveQueue | None:
            beginning = await _beginning(connection, terms, whose, clock.now())
            return None if beginning is None else LiveQueue.model_validate(beginning)

        return await under_terms(database, database.pool.acquire, ask)

    async for event in views(request, look, event="queue"):
        yield event


@routes.get(
    "/day",
    responses=problems(QueueNotYours, ManagerUnnamed),
    summary="A manager's day in one call: queue, overdue touches, time for the base",
)
async def show_day(database: Db, caller: Looker, now: Now, manager_id: UUID | None = None) -> Day:
    manager = which_manager(caller, manager_id)

    async def ask(connection: Connection, terms: Terms) -> Day | None:
        beginning = await _beginning(connection, terms, manager, now)
        if beginning is None:
            return None
        done = await touches_done(connection, manager, terms.rules.day_of(now))
        budget = budget_on(terms, now, done)
        return Day.model_validate({"manager_id": manager, "budget": budget, **beginning})

    return await under_terms(database, database.pool.acquire, ask)


@routes.get("/reports/touch-sla", summary="Touches kept, late and overdue, by segment and manager")
async def show_sla_report(
    session: Session, _caller: Overseer, begin: CalendarDay, end: CalendarDay
) -> list[SlaLine]:
    return await sla_report(session, begin=begin, end=end)


_WAITING = """
    SELECT segment, priority, count(*) FILTER (WHERE state = 'due') AS due,
        count(*) FILTER (WHERE state = 'overdue') AS overdue,
        coalesce(sum(value_minor) FILTER (WHERE state = 'overdue'), 0)::bigint AS overdue_minor
    FROM touch_plans WHERE state IN ('due', 'overdue') AND ($1::uuid IS NULL
        OR queue_of = $1 OR (owner_id IS NULL AND $2)) AND segment <> ALL($3::text[])
    GROUP BY segment, priority ORDER BY priority, segment
"""


_STANDING = """
    SELECT (SELECT count(*) FROM touch_changes)
        + (SELECT count(*) FROM touch_replans WHERE due_at IS NOT NULL)
        + count(*) FILTER (WHERE due_at <= $1) AS unsettled,
        count(*) FILTER (WHERE state = 'waiting') AS planned FROM touch_plans
"""


async def _waiting(
    connection: Connection, manager_id: UUID | None, *, common: bool, muted: list[str]
) -> list[Waiting]:
    rows = await connection.fetch(_WAITING, manager_id, common, muted)
    return [Waiting.model_validate(dict(row)) for row in rows]


async def _beginning(
    connection: Connection, terms: Terms, whose: UUID | None, now: datetime
) -> dict[str, Any] | None:
    """What waits in a queue, and whom it begins with; None when other terms are in force."""
    first = await whom_to_call(connection, terms, now=now, limit=TOP, manager_id=whose)
    if first is None:
        return None
    muted = terms.policy.muted_on(terms.rules.day_of(now))
    waiting = await _waiting(connection, whose, common=terms.policy.common_queue, muted=muted)
    return {**_sums(waiting), "waiting": waiting, "first": first}


def _sums(waiting: list[Waiting]) -> dict[str, int]:
    return {
        "due": sum(line.due for line in waiting),
        "overdue": sum(line.overdue for line in waiting),
    }
