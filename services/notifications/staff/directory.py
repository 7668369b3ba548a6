"""The directory: who works here and where they are reached. Nobody else is told anything.

A manager's id is that of the events. Somebody who leaves is inactive; nobody is deleted, so that
the ledger still says who was told.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared import audit
from libs.shared.errors import NotFound
from libs.shared.http import demand_version
from services.notifications.staff.models import StaffMember

_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('staff'), hashtext(:key))")


class StaffNotFound(NotFound):
    """There is nobody with this id in the directory."""

    code = "staff-not-found"
    ru = "Сотрудника с таким идентификатором в справочнике нет."


async def find(session: AsyncSession, staff_id: UUID) -> StaffMember:
    """Somebody of the directory."""
    found = await session.get(StaffMember, staff_id)
    if found is None:
        raise StaffNotFound(staff_id=str(staff_id))
    return found


async def write(
    session: AsyncSession,
    staff_id: UUID,
    told: dict[str, Any],
    *,
    expected: int,
    by: str,
    at: datetime,
) -> StaffMember:
    """Enter somebody, or change what is known of them.

    Args:
        told: All columns that people fill in.
        expected: The version that the change was made from; 0: whatever it is, or nobody yet.

    Raises:
        PreconditionFailed: Another version is in force.
    """
    await session.execute(_LOCK, {"key": str(staff_id)})
    member = await session.get(StaffMember, staff_id)
    if member is None:
        demand_version(expected, 0)
        member = StaffMember(staff_id=staff_id, version=0)
        session.add(member)
    demand_version(expected, member.version)
    for name, value in told.items():
        setattr(member, name, value)
    member.version += 1
    member.changed_at = at
    await session.flush()
    await audit.record(
        session,
        action="staff.changed",
        subject_type="staff",
        subject_id=str(staff_id),
        details={"version": member.version, "is_active": member.is_active},
        at=at,
        actor=by,
    )
    return member
