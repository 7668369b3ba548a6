"""`next`: a manager is given a client whom nobody else gets meanwhile.

A lease stands on the plan's row, so whoever takes a client holds its lock, and two who ask at once
get two clients. One manager who asks twice at once gets one: both would have to count the same turn
on. A lease ends when a touch is heard (the plan is another one then), by release, or by
time alone: nothing has to fire. Who asks again while they have somebody in hand gets the same
client; who says that they are done with one gets another, and the client waits for the touch to be
heard until the lease runs out.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared.database import Connection
from libs.shared.errors import Conflict, NotFound
from services.scoring.touches.budget import budget_on
from services.scoring.touches.policy import QueuePolicy
from services.scoring.touches.queue import (
    COMMON_QUEUE,
    FACTS,
    JOINED,
    OPEN,
    ORDER,
    not_muted,
    place_of,
)
from services.scoring.touches.terms import HOLD, Terms

_FIRST = f"""
    SELECT client_id, priority, state, value_minor FROM touch_plans
    WHERE (SELECT is_wanted FROM wanted) AND {OPEN} {{free}} AND queue_of = {{whose}}
    ORDER BY {ORDER} LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_HELD = "leased_by = $3 AND leased_until > $4"
_SET_ASIDE = f"""
    set_aside AS (
        UPDATE touch_plans SET is_in_hand = false
        WHERE client_id = {{client}} AND {_HELD} AND (SELECT is_granted FROM granted)
    ),
"""
# Who finds the turn another than it was when the statement began has waited for the same manager's
# other request, and cannot see what that one was given: nothing is done, and it is asked again.
_TURN = """
    seen AS MATERIALIZED (SELECT turn FROM queue_turns WHERE manager_id = $3), counted AS (
        INSERT INTO queue_turns AS t (manager_id, turn) SELECT $3, 1 FROM allowed WHERE is_allowed
        ON CONFLICT (manager_id) DO UPDATE SET turn = t.turn + 1
            WHERE t.turn = (SELECT turn FROM seen)
        RETURNING turn
    ), granted AS MATERIALIZED (SELECT EXISTS (SELECT FROM counted) AS is_granted)
"""
# One statement, so one round trip, atomic without a transaction. Whoever it sets aside, holds and
# takes are different clients: no row is written twice.
_NEXT = f"""
    WITH terms AS MATERIALIZED ({HOLD}), budget AS MATERIALIZED (
        SELECT coalesce((SELECT touches FROM manager_days WHERE manager_id = $3 AND day = $6), 0)
            AS done
    ), allowed AS MATERIALIZED (
        SELECT hold AND ($7::int IS NULL OR done < $7) AS is_allowed FROM terms, budget
    ), {_TURN}, {{set_aside}}
    held AS MATERIALIZED (
        SELECT * FROM touch_plans WHERE {_HELD} AND is_in_hand {{but}}
            AND (SELECT is_granted FROM granted)
        ORDER BY leased_at LIMIT 1
    ), wanted AS MATERIALIZED (
        SELECT is_granted AND NOT EXISTS (SELECT FROM held) AS is_wanted FROM granted
    ), {{firsts}}, chosen AS (
        SELECT client_id FROM ({{all_firsts}}) AS first ORDER BY {ORDER} LIMIT 1
    ), taken AS (
        UPDATE touch_plans AS p SET leased_by = $3, leased_at = $4, leased_until = $5,
            lease_no = lease_no + 1, is_in_hand = true
        FROM chosen WHERE p.client_id = chosen.client_id RETURNING p.*
    )
    SELECT hold, done, is_granted, entry.*
    FROM terms CROSS JOIN budget CROSS JOIN granted LEFT JOIN (
        SELECT 1 AS place, {FACTS}
        FROM (SELECT * FROM held UNION ALL SELECT * FROM taken) AS p {JOINED}
    ) AS entry ON true
"""
_COUNT_TURN = text("""
    INSERT INTO queue_turns AS t (manager_id, turn) VALUES (:manager_id, 1)
    ON CONFLICT (manager_id) DO UPDATE SET turn = t.turn + 1
""")
_LOCK = text("SELECT * FROM touch_plans WHERE client_id = :client_id FOR UPDATE")
_LEASE = text("""
    UPDATE touch_plans SET leased_by = :manager_id, leased_at = :now, leased_until = :until,
        lease_no = lease_no + 1, is_in_hand = true
    WHERE client_id = :client_id RETURNING client_id, lease_no, leased_until
""")
_RELEASE = text("""
    UPDATE touch_plans SET leased_by = NULL, leased_at = NULL, leased_until = NULL
    WHERE client_id = :client_id
""")


class NotInQueue(NotFound):
    """Nobody has to call this client now."""

    code = "client-not-in-queue"
    ru = "Этому клиенту сейчас звонить не нужно."


class LeasedByAnother(Conflict):
    """Another manager has this client in hand."""

    code = "client-leased"
    ru = "Этим клиентом сейчас занимается другой менеджер."


class LeaseOver(Conflict):
    """You do not have this client in hand any more."""

    code = "lease-over"
    ru = "Этот клиент уже не закреплён за вами."


class BudgetUsedUp(Conflict):
    """As many clients were called today as fit into the time for the base."""

    code = "budget-used-up"
    ru = "Время на работу с базой на сегодня израсходовано."


async def take_next(
    connection: Connection,
    terms: Terms,
    manager_id: UUID,
    *,
    now: datetime,
    done_with: UUID | None = None,
) -> asyncpg.Record | None:
    """The client whom a manager has in hand, or else the first free one of their queue.

    Args:
        done_with: Not this one again, who has been called; the touch will be heard.

    Returns:
        What was `done` today and what an entry is made of, `client_id` null when nobody waits;
        None when other terms are in force.

    Raises:
        BudgetUsedUp: The policy ends the day with the budget.
    """
    policy, today = terms.policy, terms.rules.day_of(now)
    room = budget_on(terms, now).touches if policy.ends_with_the_budget else None
    values = [*terms.versions, manager_id, now, _until(policy, now), today, room]
    statement = _next(terms, now, done_with, values)
    while True:
        found = await connection.fetchrow(statement, *values)
        if found is None or not found["hold"]:
            return None
        if room is not None and found["done"] >= room:
            raise BudgetUsedUp(touches=room, done=found["done"])
        if found["is_granted"]:  # else another request of this manager was
            return found


def _next(terms: Terms, now: datetime, done_with: UUID | None, values: list[Any]) -> str:
    """The statement, without what is not asked for: see `queue.py`."""
    set_aside = but = ""
    if done_with is not None:
        client = place_of(done_with, values)
        set_aside = _SET_ASIDE.format(client=client)
        but = f"AND client_id <> {client}"
    free = "AND (leased_until IS NULL OR leased_until <= $4)" + not_muted(terms, now, values)
    queues = {"own": "$3"}
    if terms.policy.common_queue:
        queues["common"] = COMMON_QUEUE
    firsts = [
        f"{name} AS MATERIALIZED ({_FIRST.format(free=free, whose=whose)})"
        for name, whose in queues.items()
    ]
    return _NEXT.format(
        set_aside=set_aside,
        but=but,
        firsts=", ".join(firsts),
        all_firsts=" UNION ALL ".join(f"SELECT * FROM {name}" for name in queues),
    )


async def take(
    session: AsyncSession, client_id: UUID, manager_id: UUID, policy: QueuePolicy, *, now: datetime
) -> Any:
    """Take a certain client of the queue in hand; again while it lasts makes it last longer.

    Raises:
        NotInQueue: Nobody has to call them.
        LeasedByAnother: As it says.
    """
    await session.execute(_COUNT_TURN, {"manager_id": manager_id})  # before any plan is locked
    plan = (await session.execute(_LOCK, {"client_id": client_id})).one_or_none()
    if plan is None or plan.state not in ("due", "overdue"):
        raise NotInQueue(client_id=str(client_id))
    if plan.leased_until is not None and plan.leased_until > now and plan.leased_by != manager_id:
        until = plan.leased_until.isoformat()
        raise LeasedByAnother(leased_by=str(plan.leased_by), leased_until=until)
    given = {"client_id": client_id, "manager_id": manager_id, "now": now}
    return (await session.execute(_LEASE, given | {"until": _until(policy, now)})).one()


async def release(
    session: AsyncSession, client_id: UUID, manager_id: UUID, *, lease_no: int, now: datetime
) -> None:
    """Give a client back into the queue; twice is once.

    Raises:
        NotInQueue: There is no such client here.
        LeaseOver: The lease is another one by now.
    """
    plan = (await session.execute(_LOCK, {"client_id": client_id})).one_or_none()
    if plan is None:
        raise NotInQueue(client_id=str(client_id))
    if plan.lease_no != lease_no:
        raise LeaseOver(lease_no=plan.lease_no)
    if plan.leased_by is None:
        return
    if plan.leased_by != manager_id or plan.leased_until <= now:
        raise LeaseOver(lease_no=plan.lease_no)
    await session.execute(_RELEASE, {"client_id": client_id})


def _until(policy: QueuePolicy, now: datetime) -> datetime:
    return now + timedelta(minutes=policy.lease_minutes)
