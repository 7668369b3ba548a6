"""What people do with a lead: claim it, give it back, pass it on, end it.

Each loads the lead with its row locked, changes it, ends the offer it had, keeps the loads right,
says what happened and writes down who did it, in the request's transaction.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared import audit, outbox
from libs.shared.errors import Conflict, NotFound
from libs.shared.events import Event
from libs.shared.policies import current
from services.routing.claim_window import end_of_window
from services.routing.holding import bare, held_otherwise
from services.routing.lead import Lead, LeadOfferedToAnother
from services.routing.models import Manager, Offer
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
    before = lead.holder
    events = lead.claim(by=by, epoch=epoch, at=now)
    if events:
        await _done(session, lead, events, now, before=before, ended="claimed", verb="claimed")
    return lead


async def release(
    session: AsyncSession, lead_id: UUID, *, by: UUID, epoch: int, reason: str, now: datetime
) -> Lead:
    """Give a lead back; raises as `Lead.release` does."""
    lead = await find_lead(session, lead_id, lock=True)
    before = lead.holder
    events = lead.release(by=by, epoch=epoch, reason=reason, at=now)
    await _done(
        session,
        lead,
        events,
        now,
        before=before,
        ended="released",
        verb="released",
        reason=reason,
        epoch=epoch,
    )
    return lead


async def decline(
    session: AsyncSession, lead_id: UUID, *, by: UUID, epoch: int, reason: str, now: datetime
) -> Lead:
    """Refuse an offer; raises as `Lead.decline` does."""
    lead = await find_lead(session, lead_id, lock=True)
    before = lead.holder
    events = lead.decline(by=by, epoch=epoch, reason=reason, at=now)
    await _done(
        session,
        lead,
        events,
        now,
        before=before,
        ended="declined",
        verb="declined",
        reason=reason,
        epoch=epoch,
    )
    return lead


async def take(session: AsyncSession, lead_id: UUID, *, by: UUID, now: datetime) -> Lead:
    """Take a lead out of the common queue; raises as `Lead.take` does."""
    await _working(session, by)
    lead = await find_lead(session, lead_id, lock=True)
    events = lead.take(by=by, at=now)
    await session.flush()
    session.add(_offer(lead, now, now, "taken from the common queue", ended="claimed"))
    await _done(session, lead, events, now, before=None, verb="taken")
    return lead


async def assign(
    session: AsyncSession, lead_id: UUID, *, to: UUID, reason: str, by: str, now: datetime
) -> Lead:
    """Hand a lead to a manager of a supervisor's choice; raises as `Lead.assign` does."""
    await _working(session, to)
    lead = await find_lead(session, lead_id, lock=True)
    await _offer_to(session, lead, to, reason, now, verb="handed_over", actor=by)
    return lead


async def transfer(
    session: AsyncSession,
    lead_id: UUID,
    *,
    by: UUID,
    epoch: int,
    to: UUID,
    reason: str,
    now: datetime,
) -> Lead:
    """Pass one's own lead on to a colleague, who must claim it; raises as `Lead.release` does."""
    await _working(session, to)
    lead = await find_lead(session, lead_id, lock=True)
    lead.demand_holder(by, epoch)
    if to == by:
        raise LeadOfferedToAnother(**lead.as_it_is())
    await _offer_to(session, lead, to, reason, now, verb="transferred")
    return lead


async def _offer_to(
    session: AsyncSession,
    lead: Lead,
    to: UUID,
    reason: str,
    now: datetime,
    *,
    verb: str,
    actor: str | None = None,
) -> None:
    claims = (await current(session, ClaimPolicy)).body
    before, epoch = lead.holder, lead.epoch
    until = end_of_window(claims, now)
    events = lead.assign(to, at=now, window=until - now, why=reason)
    await _end_offer(session, lead.lead_id, epoch, "superseded", now, reason)
    await session.flush()
    session.add(_offer(lead, now, until, reason))
    await _done(session, lead, events, now, before=before, verb=verb, reason=reason, actor=actor)


async def take_over(
    session: AsyncSession, lead_id: UUID, *, to: UUID, reason: str, by: str, now: datetime
) -> Lead:
    """Give a lead to a manager for good; raises as `Lead.take_over` does."""
    await _working(session, to)
    lead = await find_lead(session, lead_id, lock=True)
    before, epoch = lead.holder, lead.epoch
    events = lead.take_over(to, at=now, why=reason)
    if events:
        await _end_offer(session, lead_id, epoch, "superseded", now, reason)
        await session.flush()
        session.add(_offer(lead, now, now, reason, ended="claimed"))
        await _done(
            session, lead, events, now, before=before, verb="taken_over", reason=reason, actor=by
        )
    return lead


async def convert(
    session: AsyncSession,
    lead_id: UUID,
    *,
    by: UUID,
    epoch: int,
    deal_id: UUID | None,
    now: datetime,
) -> Lead:
    """Make a deal of a claimed lead; raises as `Lead.convert` does."""
    lead = await find_lead(session, lead_id, lock=True)
    before = lead.holder
    events = lead.convert(by=by, epoch=epoch, deal_id=deal_id, at=now)
    if events:
        await _done(session, lead, events, now, before=before, verb="converted")
    return lead


async def close(
    session: AsyncSession,
    lead_id: UUID,
    *,
    by: UUID | None,
    epoch: int | None,
    reason: str,
    now: datetime,
) -> Lead:
    """End a lead without a deal.

    Args:
        by: The manager who holds it, with the epoch; None: a supervisor, whoever holds it.

    Raises:
        LeadOfferedToAnother, OfferStale, LeadEnded: As `Lead.claim` and `Lead.close` do.
    """
    lead = await find_lead(session, lead_id, lock=True)
    before = lead.holder
    if by is not None and lead.state != "closed":
        lead.demand_holder(by, lead.epoch if epoch is None else epoch)
    events = lead.close(reason=reason, at=now)
    if events:
        await _done(
            session, lead, events, now, before=before, ended="closed", verb="closed", reason=reason
        )
    return lead


async def _done(
    session: AsyncSession,
    lead: Lead,
    events: Sequence[Event],
    now: datetime,
    *,
    before: UUID | None,
    verb: str,
    ended: str | None = None,
    reason: str | None = None,
    epoch: int | None = None,
    actor: str | None = None,
) -> None:
    """End the offer, keep the loads right, say it and write it down."""
    if ended is not None:
        await _end_offer(session, lead.lead_id, epoch or lead.epoch, ended, now, reason)
    if lead.holder != before:
        tx = await bare(session)
        await held_otherwise(tx, now, lost=[before], got=[lead.holder])
    details: dict[str, Any] = {
        "state": lead.state,
        "epoch": lead.epoch,
        "from": str(before) if before else None,
        "to": str(lead.manager_id) if lead.manager_id else None,
    }
    await audit.record(
        session,
        action=f"lead.{verb}",
        subject_type="lead",
        subject_id=str(lead.lead_id),
        at=now,
        details=details | ({"reason": reason} if reason else {}),
        actor=actor,
    )
    await outbox.add(session, *events)


async def _working(session: AsyncSession, manager_id: UUID) -> None:
    if not (await find_manager(session, manager_id)).is_active:
        raise ManagerInactive(manager_id=str(manager_id))


async def _end_offer(
    session: AsyncSession,
    lead_id: UUID,
    epoch: int,
    how: str,
    now: datetime,
    because: str | None = None,
) -> None:
    await session.execute(
        update(Offer)
        .where(Offer.lead_id == lead_id, Offer.epoch == epoch, Offer.ended_at.is_(None))
        .values(ended_at=now, ended_how=how, ended_because=because)
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
