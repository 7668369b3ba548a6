"""Who holds what: loads are changed here and in a sitting (`offering.py`), at the desk only.

Whoever loses a lead has room again, so as many are drawn from the common queue.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared import database
from libs.shared.database import Connection
from services.routing import common_queue
from services.routing.desk import DESK

_CHANGE = f"""
    WITH desk AS ({DESK.format(where="")})
    UPDATE loads SET open_leads = open_leads + change.by
    FROM desk, unnest($1::uuid[], $2::int[]) AS change (manager_id, by)
    WHERE loads.manager_id = change.manager_id
"""


async def bare(session: AsyncSession) -> Connection:
    """The session's connection for set-based SQL, in the session's transaction."""
    await session.flush()
    await session.execute(text("SELECT 1"))  # begins the transaction if nothing has yet
    return await database.bare(session)


async def held_otherwise(
    tx: Connection,
    now: datetime,
    *,
    lost: Iterable[UUID | None] = (),
    got: Iterable[UUID | None] = (),
) -> None:
    """Note who holds leads no more and who does now; None is nobody."""
    changes: Counter[UUID] = Counter()
    for manager_id in lost:
        if manager_id is not None:
            changes[manager_id] -= 1
    freed = changes.total()
    for manager_id in got:
        if manager_id is not None:
            changes[manager_id] += 1
    changed = sorted(manager_id for manager_id, by in changes.items() if by)
    if changed:
        await tx.execute(_CHANGE, changed, [changes[manager_id] for manager_id in changed])
    await common_queue.draw(tx, now, -freed)
