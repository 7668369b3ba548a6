"""Whether touches are made in time: kept, late and still overdue, by segment and manager.

A touch belongs to the working day on which it was due. One that nobody asked for any more before
somebody had spoken (the client bought, or moved to another segment) is counted apart.
"""

from datetime import date
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_REPORT = text("""
    SELECT segment, manager_id, count(*) FILTER (WHERE outcome = 'kept') AS kept,
        count(*) FILTER (WHERE outcome = 'late') AS late,
        count(*) FILTER (WHERE outcome = 'overdue') AS overdue,
        count(*) FILTER (WHERE outcome = 'due') AS due,
        count(*) FILTER (WHERE outcome = 'void') AS void
    FROM (
        SELECT segment, manager_id, outcome FROM touch_log WHERE due_on >= :begin AND due_on < :end
        UNION ALL
        SELECT segment, owner_id, state FROM touch_plans
        WHERE state IN ('due', 'overdue') AND due_on >= :begin AND due_on < :end
    ) AS touches GROUP BY segment, manager_id ORDER BY segment, manager_id NULLS LAST
""")


class SlaLine(BaseModel):
    """One segment and manager.

    Attributes:
        manager_id: Who spoke with the clients, or whose they are; null: nobody's.
        overdue: Nobody has spoken with them yet.
        compliance: Share of kept among kept, late and overdue; null where there are none.
    """

    segment: str
    manager_id: UUID | None
    kept: int
    late: int
    overdue: int
    due: int
    void: int
    compliance: float | None


async def sla_report(session: AsyncSession, *, begin: date, end: date) -> list[SlaLine]:
    """Touches that were due from one day on and before another."""
    lines = []
    for row in (await session.execute(_REPORT, {"begin": begin, "end": end})).mappings():
        asked = row["kept"] + row["late"] + row["overdue"]
        lines.append(SlaLine(**row, compliance=row["kept"] / asked if asked else None))
    return lines
