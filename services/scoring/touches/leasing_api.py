"""HTTP in: clients of the queue taken in hand and given back."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import asyncpg
from fastapi import Depends
from pydantic import BaseModel
from starlette.responses import Response

from libs.shared.auth import Principal, Role, require
from libs.shared.database import Connection, bare
from libs.shared.http import (
    Db,
    Int32,
    Now,
    Request,
    Session,
    Transaction,
    answer_of,
    problems,
    router,
)
from services.scoring.touches.budget import Budget, budget_on, touches_done
from services.scoring.touches.leasing import (
    BudgetUsedUp,
    LeasedByAnother,
    LeaseOver,
    NotInQueue,
    release,
    take,
    take_next,
)
from services.scoring.touches.queue import QueueEntry, entries, plan_of
from services.scoring.touches.terms import Terms, in_force, under_terms
from services.scoring.touches.whose_queue import ManagerUnnamed, QueueNotYours, which_manager

routes = router(prefix="/v1", tags=["queue"])

Caller = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR, Role.INTEGRATION))]


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


@routes.post(
    "/queue/next",
    response_model=InHand,
    responses=problems(QueueNotYours, ManagerUnnamed, BudgetUsedUp),
    summary="Take the next client in hand; nobody else gets them meanwhile",
)
async def take_next_client(
    wish: TakeNext, database: Db, transaction: Transaction, caller: Caller, now: Now
) -> Response:
    manager = which_manager(caller, wish.manager_id)

    async def ask(connection: Connection, terms: Terms) -> Response | None:
        found = await take_next(connection, terms, manager, now=now, done_with=wish.done_with)
        if found is None:
            return None
        return answer_of(_in_hand(found, terms, now, done=found["done"]))

    return await under_terms(database, transaction.statement, ask)


@routes.post(
    "/queue/{client_id}/take",
    response_model=InHand,
    responses=problems(QueueNotYours, ManagerUnnamed, NotInQueue, LeasedByAnother),
    summary="Take a certain client of the queue in hand",
)
async def take_client(
    client_id: UUID, wish: TakeClient, session: Session, database: Db, caller: Caller, now: Now
) -> Response:
    manager = which_manager(caller, wish.manager_id)
    terms = await in_force(database)
    await take(session, client_id, manager, terms.policy, now=now)
    connection = await bare(session)
    plan = await plan_of(connection, client_id)
    done = await touches_done(connection, manager, terms.rules.day_of(now))
    return answer_of(_in_hand(plan, terms, now, done=done))


@routes.post(
    "/queue/{client_id}/release",
    status_code=204,
    responses=problems(QueueNotYours, ManagerUnnamed, NotInQueue, LeaseOver),
    summary="Give a client back into the queue",
)
async def release_client(
    client_id: UUID, wish: ReleaseClient, session: Session, caller: Caller, now: Now
) -> None:
    manager = which_manager(caller, wish.manager_id)
    await release(session, client_id, manager, lease_no=wish.lease_no, now=now)


def _in_hand(plan: asyncpg.Record, terms: Terms, now: datetime, *, done: int) -> dict[str, Any]:
    """Values of `InHand`."""
    budget = budget_on(terms, now, done).model_dump()
    if plan["client_id"] is None:
        return {"client": None, "lease_no": None, "leased_until": None, "budget": budget}
    (client,) = entries([plan], terms, now)
    return {
        "client": client,
        "lease_no": plan["lease_no"],
        "leased_until": plan["leased_until"],
        "budget": budget,
    }
