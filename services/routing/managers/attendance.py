"""Coming and going: what happens to leads when a manager comes, and when one is not there any more.

Whoever comes is offered the common queue. Whoever goes keeps what they have claimed; what they hold
unclaimed moves at once, if the policy has it so for their reason. Each manager's row is due when
their presence may change next: a shift, their calendar, an absence, a pause, a sign of life.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from libs.shared import outbox
from libs.shared.database import Connection
from libs.shared.events import LeadReleased
from libs.shared.policies import current
from libs.shared.timers import Timer, due_column
from services.routing import common_queue
from services.routing.choosing.presence import HERE, NAMES, Presence, presence
from services.routing.desk import facts_of
from services.routing.holding import held_otherwise
from services.routing.offering import WITH_ITS_OFFER
from services.routing.policy import PresencePolicy

BATCH = 200
LOOK_AT_LEAST = timedelta(days=1)

_FACTS = """SELECT manager_id, is_active, calendar::text AS calendar, paused_at, paused_until,
        seen_at, presence FROM managers"""
_DUE = f"{_FACTS} WHERE due_at <= $1 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED"
_THESE = f"{_FACTS} WHERE manager_id = ANY($1::uuid[]) ORDER BY manager_id FOR UPDATE"
_NOTE = """
    UPDATE managers SET presence = p.presence, due_at = p.due_at
    FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS p (id, presence, due_at)
    WHERE manager_id = p.id AND (managers.presence, managers.due_at) IS DISTINCT FROM
        (p.presence, p.due_at)
"""
# Who is away was not silent: the lead may come back to them in the same round. A locked one is
# being claimed, given back or moved on already; who waited for it could be waited for.
_WITHDRAW = f"""
    WITH held AS (
        SELECT lead_id, manager_id AS holder, l.epoch FROM leads AS l {WITH_ITS_OFFER}
        WHERE manager_id = ANY($1::uuid[]) AND state = 'offered' AND seen.epoch = l.epoch
        ORDER BY lead_id FOR UPDATE OF l SKIP LOCKED
    ), moved AS (
        UPDATE leads SET state = 'waiting', manager_id = NULL, due_at = $2
        FROM held WHERE leads.lead_id = held.lead_id
        RETURNING leads.lead_id, client_id, held.holder, leads.epoch
    ), ended AS (
        UPDATE offers SET ended_at = $2, ended_how = 'withdrawn'
        FROM held WHERE offers.lead_id = held.lead_id AND offers.epoch = held.epoch
    )
    SELECT * FROM moved ORDER BY lead_id
"""
# After `_NOTE` this transaction has the desk.
_CATCH_UP = """
    UPDATE turns SET passed = greatest(passed, w.reached)
    FROM (SELECT wheel, max(passed - stride) AS reached FROM turns GROUP BY wheel) AS w
    WHERE turns.wheel = w.wheel AND manager_id = ANY($1::uuid[]) AND passed < w.reached
"""
_AWAY = {
    "off_shift": "смена окончена",
    "absent": "менеджер отсутствует",
    "sick": "менеджер заболел",
    "paused": "менеджер на перерыве",
    "offline": "менеджер не на связи",
    "inactive": "менеджер больше не работает",
}


async def look_again(
    tx: Connection, managers: Sequence[UUID], now: datetime, policy: PresencePolicy
) -> list[Presence]:
    """See who of these managers is there, and do what follows; in the order of their ids.

    Called when something about them was changed: whoever is there is offered the common queue.
    """
    rows = await tx.fetch(_THESE, managers)
    return await _attend(tx, rows, now, policy, always_drain=True)


async def attend(tx: Connection, now: datetime) -> int:
    """Look at managers whose presence may have changed by now; at most `BATCH`."""
    rows = await tx.fetch(_DUE, now, BATCH)
    if rows:
        policy = (await current(tx, PresencePolicy)).body
        await _attend(tx, rows, now, policy, always_drain=False)
    return len(rows)


async def _attend(
    tx: Connection,
    rows: Sequence[asyncpg.Record],
    now: datetime,
    policy: PresencePolicy,
    *,
    always_drain: bool,
) -> list[Presence]:
    minutes = policy.sign_of_life_minutes
    holds = None if minutes is None else timedelta(minutes=minutes)
    facts = await facts_of(tx, rows, now)
    found = [presence(each, now, sign_holds=holds) for each in facts]
    gone: dict[UUID, str] = {}
    back: list[UUID] = []
    for row, there in zip(rows, found, strict=True):
        name = NAMES[there.code]
        if there.code == HERE:
            back += [row["manager_id"]] if row["presence"] != name else []
        elif name in policy.moves_unclaimed:
            gone[row["manager_id"]] = name
    if gone:
        await _withdraw(tx, gone, now)
    await tx.execute(
        _NOTE,
        [row["manager_id"] for row in rows],
        [NAMES[there.code] for there in found],
        [_due(row, there, now) for row, there in zip(rows, found, strict=True)],
    )
    if back:
        await tx.execute(_CATCH_UP, back)
    if back or (always_drain and any(there.code == HERE for there in found)):
        await common_queue.drain(tx, now)
    return found


def _due(row: asyncpg.Record, there: Presence, now: datetime) -> datetime | None:
    """Shifts that lie far ahead are not known yet, so everybody is looked at once a day."""
    if not row["is_active"]:
        return None
    at_least = now + LOOK_AT_LEAST
    return at_least if there.until is None else min(there.until, at_least)


async def _withdraw(tx: Connection, gone: dict[UUID, str], now: datetime) -> None:
    moved = await tx.fetch(_WITHDRAW, list(gone), now)
    await held_otherwise(tx, now, lost=[row["holder"] for row in moved])
    await outbox.add_all(
        tx,
        [
            LeadReleased(
                lead_id=row["lead_id"],
                client_id=row["client_id"],
                manager_id=row["holder"],
                epoch=row["epoch"],
                reason=_AWAY[gone[row["holder"]]],
                occurred_at=now,
            )
            for row in moved
        ],
    )


ATTENDANCE = Timer("attendance", due_column("managers"), attend)
