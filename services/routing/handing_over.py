"""What people do with a lead: claim it, give it back, take it from the queue, hand it to another.

Each loads the lead with its row locked, changes it, ends the offer it had and says what happened,
in the request's transaction.
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared import audit, outbox
from libs.shared.errors import Conflict, NotFound
from libs.shared.policies import current
from services.routing.models import Lead, Manager, Offer
from services.routing.policy import ClaimPolicy


class LeadNotFound(NotFound):
    """There is no lead with this id."""

    code = "lead-not-found"
    ru = "Заявки с таким идентификатором нет."


class ManagerNotFound(NotFound):
    """There is no manager with this id."""

    code = "manager-not-found"
    ru = "Менеджера с таким идентификатором нет."


class ManagerInactive(Conflict):
    """This manager no longer works with leads."""

    code = "manager-inactive"
    ru = "Этот менеджер больше не работает с заявками."


async def find_lead(session: AsyncSession, lead_id: UUID, *, lock: bool = False) -> Lead:
    """A lead; with `lock` nobody else changes it until the transaction ends."""
    lead = await session.get(Lead, lead_id, with_for_update=lock)
    if lead is None:
        raise LeadNotFound(lead_id=str(lead_id))
    return lead


async def find_manager(session: AsyncSession, manager_id: UUID, *, lock: bool = False) -> Manager:
    """A manager."""
    manager = await session.get(Manager, manager_id, with_for_update=lock)
    if manager is None:
        raise ManagerNotFound(manager_id=str(manager_id))
    return manager


async def claim(
    session: AsyncSession, lead_id: UUID, *, by: UUID, epoch: int, now: datetime
) -> Lead:
    """Claim an offered lead; raises as `Lead.claim` does."""
    lead = await find_lead(session, lead_id, lock=True)
    events = lead.claim(by=by, epoch=epoch, at=now)
    if events:
        await _end_offer(session, lead_id, epoch, "claimed", now)
        await outbox.add(session, *events)
    return lead


async def release(
    session: AsyncSession, lead_id: UUID, *, by: UUID, epoch: int, reason: str, now: datetime
) -> Lead:
    """Give a lead back; raises as `Lead.release` does."""
    lead = await find_lead(session, lead_id, lock=True)
    events = lead.release(by=by, epoch=epoch, reason=reason, at=now)
    await _end_offer(session, lead_id, epoch, "released", now)
    await outbox.add(session, *events)
    return lead


async def take(session: AsyncSession, lead_id: UUID, *, by: UUID, now: datetime) -> Lead:
    """Take a lead out of the common queue; raises as `Lead.take` does."""
    await _working(session, by)
    lead = await find_lead(session, lead_id, lock=True)
    events = lead.take(by=by, at=now)
    await session.flush()
    session.add(_offer(lead, now, now, "taken from the common queue", ended="claimed"))
    await outbox.add(session, *events)
    return lead


async def assign(
    session: AsyncSession, lead_id: UUID, *, to: UUID, reason: str, by: str, now: datetime
) -> Lead:
    """Hand a lead to a manager of a supervisor's choice; written into the audit log."""
    await _working(session, to)
    policy = (await current(session, ClaimPolicy)).body
    lead = await find_lead(session, lead_id, lock=True)
    before = {"manager_id": str(lead.manager_id), "state": lead.state, "epoch": lead.epoch}
    window = timedelta(minutes=policy.claim_window_minutes)
    await _end_offer(session, lead_id, lead.epoch, "superseded", now)
    events = lead.assign(to, at=now, window=window, why=reason)
    await session.flush()
    session.add(_offer(lead, now, now + window, reason))
    await audit.record(
        session,
        action="lead.handed_over",
        subject_type="lead",
        subject_id=str(lead_id),
        at=now,
        details={"before": before, "to": str(to), "reason": reason},
        actor=by,
    )
    await outbox.add(session, *events)
    return lead


async def _working(session: AsyncSession, manager_id: UUID) -> None:
    if not (await find_manager(session, manager_id)).is_active:
        raise ManagerInactive(manager_id=str(manager_id))


async def _end_offer(
    session: AsyncSession, lead_id: UUID, epoch: int, how: str, now: datetime
) -> None:
    await session.execute(
        update(Offer)
        .where(Offer.lead_id == lead_id, Offer.epoch == epoch, Offer.ended_at.is_(None))
        .values(ended_at=now, ended_how=how)
    )


def _offer(lead: Lead, now: datetime, until: datetime, why: str, ended: str | None = None) -> Offer:
    assert lead.manager_id is not None  # noqa: S101  # it was just given to somebody
    return Offer(
        lead_id=lead.lead_id,
        epoch=lead.epoch,
        manager_id=lead.manager_id,
        offered_at=now,
        claim_until=until,
        why=why,
        ended_at=now if ended else None,
        ended_how=ended,
    )
