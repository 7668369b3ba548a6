"""`next`: a manager is given a client whom nobody else gets meanwhile.

A lease stands on the plan's row, so whoever takes a client holds its lock, and two who ask at once
get two clients. It ends when a touch is heard (the plan is another one then), by release, or by
time alone: nothing has to fire. Who asks again while they have somebody in hand gets the same
client; who says that they are done with one gets another, and the client waits for the touch to be
heard until the lease runs out.
"""

from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared.errors import Conflict, NotFound
from services.scoring.touches.policy import QueuePolicy
from services.scoring.touches.queue import COMMON_QUEUE

_FREE = """state IN ('due', 'overdue') AND (leased_until IS NULL OR leased_until <= :now)
        AND segment <> ALL(CAST(:muted AS text[]))"""
_ORDER = "priority, state DESC, value_minor DESC, client_id"
_FIRST = "SELECT client_id, priority, state, value_minor FROM touch_plans WHERE"
_NEXT = text(f"""
    WITH own AS MATERIALIZED (
        {_FIRST} queue_of = :manager_id AND {_FREE} ORDER BY {_ORDER}
        LIMIT 1 FOR UPDATE SKIP LOCKED
    ), common AS MATERIALIZED (
        {_FIRST} queue_of = {COMMON_QUEUE} AND :common AND {_FREE} ORDER BY {_ORDER}
        LIMIT 1 FOR UPDATE SKIP LOCKED
    ), chosen AS (
        SELECT client_id FROM (SELECT * FROM own UNION ALL SELECT * FROM common) AS first
        ORDER BY {_ORDER} LIMIT 1
    )
    UPDATE touch_plans AS p SET leased_by = :manager_id, leased_at = :now,
        leased_until = :until, lease_no = lease_no + 1, is_in_hand = true
    FROM chosen WHERE p.client_id = chosen.client_id
    RETURNING p.client_id, p.lease_no, p.leased_until
""")
_HELD = text("""
    SELECT client_id, lease_no, leased_until FROM touch_plans
    WHERE leased_by = :manager_id AND leased_until > :now AND is_in_hand
    ORDER BY leased_at LIMIT 1
""")
_SET_ASIDE = text("""
    UPDATE touch_plans SET is_in_hand = false
    WHERE client_id = :client_id AND leased_by = :manager_id AND leased_until > :now
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


async def take_next(
    session: AsyncSession,
    manager_id: UUID,
    policy: QueuePolicy,
    *,
    now: datetime,
    today: date,
    done_with: UUID | None = None,
) -> Any:
    """The client whom a manager has in hand, or else the first free one of their queue.

    Args:
        today: The company's day, which says what is muted.
        done_with: Not this one again, who has been called; the touch will be heard.

    Returns:
        A row with client_id, lease_no and leased_until; None when the queue is empty.
    """
    me = {"manager_id": manager_id, "now": now}
    if done_with is not None:
        await session.execute(_SET_ASIDE, {"client_id": done_with, **me})
    held = (await session.execute(_HELD, me)).one_or_none()
    if held is not None:
        return held
    wish = {
        "until": _until(policy, now),
        "common": policy.common_queue,
        "muted": policy.muted_on(today),
    }
    return (await session.execute(_NEXT, me | wish)).one_or_none()


async def take(
    session: AsyncSession, client_id: UUID, manager_id: UUID, policy: QueuePolicy, *, now: datetime
) -> Any:
    """Take a certain client of the queue in hand; again while it lasts makes it last longer.

    Raises:
        NotInQueue: Nobody has to call them.
        LeasedByAnother: As it says.
    """
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
