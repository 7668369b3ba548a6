"""The floor as it changes: what waits, who is there, whose clock runs out next.

Sent as `libs.shared.live` sends views: at once, and after every commit that changed it.
"""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

_COUNTS = text("""
    SELECT count(*) FILTER (WHERE state = 'waiting') AS waiting,
        count(*) FILTER (WHERE state = 'queued') AS queued,
        count(*) FILTER (WHERE state = 'muted') AS muted,
        count(*) FILTER (WHERE state = 'offered') AS offered
    FROM leads WHERE state IN ('waiting', 'queued', 'muted', 'offered')
""")
_PEOPLE = text("""
    SELECT m.manager_id, m.name, m.presence, coalesce(l.open_leads, 0) AS open_leads
    FROM managers AS m LEFT JOIN loads AS l USING (manager_id) WHERE m.is_active
    ORDER BY m.name, m.manager_id
""")
_CLOCKS = text("""
    SELECT lead_id, manager_id, epoch, due_at AS runs_out_at, received_at FROM leads
    WHERE state = 'offered' ORDER BY due_at LIMIT 20
""")
_OLDEST = text("""
    SELECT lead_id, received_at FROM leads WHERE state = 'queued'
    ORDER BY received_at, lead_id LIMIT 20
""")


class PersonThere(BaseModel):
    """A manager, whether they are there, and how much they have to do."""

    manager_id: UUID
    name: str
    presence: str
    open_leads: int


class RunningClock(BaseModel):
    """An offer that lapses when nobody claims it."""

    lead_id: UUID
    manager_id: UUID
    epoch: int
    runs_out_at: datetime
    received_at: datetime


class QueuedLead(BaseModel):
    """A lead of the common queue."""

    lead_id: UUID
    received_at: datetime


class FloorPicture(BaseModel):
    """The floor at a moment.

    Attributes:
        counts: Leads by state.
        clocks: The twenty that run out first.
        queue: The twenty that have waited longest in the common queue.
    """

    counts: dict[str, int]
    managers: list[PersonThere]
    clocks: list[RunningClock]
    queue: list[QueuedLead]


async def picture(session: AsyncSession) -> FloorPicture:
    """The floor as it is."""

    async def read(query: TextClause) -> list[dict[str, object]]:
        return [dict(row) for row in (await session.execute(query)).mappings()]

    (counts,) = await read(_COUNTS)
    return FloorPicture.model_validate(
        {
            "counts": counts,
            "managers": await read(_PEOPLE),
            "clocks": await read(_CLOCKS),
            "queue": await read(_OLDEST),
        }
    )
