"""Tables of routing, and how a lead may change hands.

A lead is `waiting` to be offered, `offered` to one manager, `claimed` by them, or `queued` in the
common queue. The methods are the only ways from one to another; each raises what forbids it and
returns the events it causes. The caller holds the lead's row lock: claim and timeout meet there.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from libs.shared.errors import Conflict
from libs.shared.events import Event, LeadAssigned, LeadClaimed, LeadReleased, LeadUnclaimed
from services.routing.tables import Base

Instant = TIMESTAMP(timezone=True)


class ClaimWindowClosed(Conflict):
    """The time to claim this lead is over; it went on."""

    code = "claim-window-closed"
    ru = "Время, чтобы взять заявку, вышло; она ушла дальше."


class LeadOfferedToAnother(Conflict):
    """This lead is offered to or held by another manager."""

    code = "lead-offered-to-another"
    ru = "Эта заявка предложена другому менеджеру."


class OfferStale(Conflict):
    """This offer is not the lead's current one; look at the lead again."""

    code = "offer-stale"
    ru = "Это предложение устарело; посмотрите заявку заново."


class LeadNotQueued(Conflict):
    """This lead is not in the common queue."""

    code = "lead-not-queued"
    ru = "Этой заявки нет в общей очереди."


class Manager(Base):
    """A sales manager who may be offered leads."""

    __tablename__ = "managers"

    manager_id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    is_active: Mapped[bool]
    calendar: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    last_turn: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(Instant)
    version: Mapped[int]
    due_at: Mapped[datetime | None] = mapped_column(Instant)


class Shift(Base):
    """When a manager is on shift besides their calendar; open-ended until it is ended."""

    __tablename__ = "shifts"

    shift_id: Mapped[UUID] = mapped_column(primary_key=True)
    manager_id: Mapped[UUID]
    starts_at: Mapped[datetime] = mapped_column(Instant)
    ends_at: Mapped[datetime | None] = mapped_column(Instant)
    due_at: Mapped[datetime | None] = mapped_column(Instant)


class Offer(Base):
    """One offer of a lead to a manager: the answer to "why him?"."""

    __tablename__ = "offers"

    lead_id: Mapped[UUID] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    manager_id: Mapped[UUID]
    offered_at: Mapped[datetime] = mapped_column(Instant)
    claim_until: Mapped[datetime] = mapped_column(Instant)
    why: Mapped[str]
    ended_at: Mapped[datetime | None] = mapped_column(Instant)
    ended_how: Mapped[str | None]  # claimed, lapsed, released, superseded


class Lead(Base):
    """A lead in flight."""

    __tablename__ = "leads"

    lead_id: Mapped[UUID] = mapped_column(primary_key=True)
    client_id: Mapped[UUID]
    source: Mapped[str]
    channel: Mapped[str]
    owner_id: Mapped[UUID | None]
    state: Mapped[str]
    manager_id: Mapped[UUID | None]
    epoch: Mapped[int]
    round: Mapped[int]
    asked: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    received_at: Mapped[datetime] = mapped_column(Instant)
    due_at: Mapped[datetime | None] = mapped_column(Instant)
    claimed_at: Mapped[datetime | None] = mapped_column(Instant)

    def claim(self, *, by: UUID, epoch: int, at: datetime) -> list[Event]:
        """Give the lead to the manager it is offered to; the same claim again changes nothing.

        Raises:
            LeadOfferedToAnother: Somebody else holds it, or nobody yet.
            OfferStale: The epoch is not that of the current offer.
            ClaimWindowClosed: The offer ended at or before `at`.
        """
        now = self._as_it_is()
        if self.manager_id != by:
            raise LeadOfferedToAnother(**now)
        if self.epoch != epoch:
            raise OfferStale(**now)
        if self.state == "claimed":
            return []
        if self.due_at is None or at >= self.due_at:
            raise ClaimWindowClosed(**now)
        self.state, self.claimed_at, self.due_at = "claimed", at, None
        return [self._claimed(by, at)]

    def release(self, *, by: UUID, epoch: int, reason: str, at: datetime) -> list[Event]:
        """Give the lead back; it is offered to the next manager at once.

        Raises:
            LeadOfferedToAnother, OfferStale: As for `claim`.
        """
        now = self._as_it_is()
        if self.manager_id != by or self.state not in ("offered", "claimed"):
            raise LeadOfferedToAnother(**now)
        if self.epoch != epoch:
            raise OfferStale(**now)
        self._wait(at)
        return [
            LeadReleased(
                lead_id=self.lead_id,
                client_id=self.client_id,
                manager_id=by,
                epoch=epoch,
                reason=reason,
                occurred_at=at,
            )
        ]

    def take(self, *, by: UUID, at: datetime) -> list[Event]:
        """Take the lead out of the common queue.

        Raises:
            LeadNotQueued: It is not there.
        """
        if self.state != "queued":
            raise LeadNotQueued(**self._as_it_is())
        return [self._assign(by, at, at, "taken from the common queue"), self._take_over(by, at)]

    def assign(self, to: UUID, *, at: datetime, window: timedelta, why: str) -> list[Event]:
        """Offer the lead to a manager of a supervisor's choice, whoever holds it now."""
        events: list[Event] = []
        if self.manager_id is not None and self.state == "offered":
            events.append(
                LeadUnclaimed(
                    lead_id=self.lead_id,
                    client_id=self.client_id,
                    manager_id=self.manager_id,
                    epoch=self.epoch,
                    occurred_at=at,
                )
            )
        elif self.manager_id is not None and self.state == "claimed":
            events.append(
                LeadReleased(
                    lead_id=self.lead_id,
                    client_id=self.client_id,
                    manager_id=self.manager_id,
                    epoch=self.epoch,
                    reason=why,
                    occurred_at=at,
                )
            )
        return [*events, self._assign(to, at, at + window, why)]

    def _as_it_is(self) -> dict[str, Any]:
        """What a problem tells of the lead."""
        holder = str(self.manager_id) if self.manager_id else None
        return {"state": self.state, "epoch": self.epoch, "manager_id": holder}

    def _assign(self, to: UUID, at: datetime, until: datetime, why: str) -> LeadAssigned:
        self.state, self.manager_id, self.epoch = "offered", to, self.epoch + 1
        self.due_at, self.claimed_at = until, None
        return LeadAssigned(
            lead_id=self.lead_id,
            client_id=self.client_id,
            manager_id=to,
            epoch=self.epoch,
            claim_until=until,
            reason=why,
            occurred_at=at,
        )

    def _take_over(self, by: UUID, at: datetime) -> LeadClaimed:
        self.state, self.claimed_at, self.due_at = "claimed", at, None
        return self._claimed(by, at)

    def _claimed(self, by: UUID, at: datetime) -> LeadClaimed:
        return LeadClaimed(
            lead_id=self.lead_id,
            client_id=self.client_id,
            manager_id=by,
            epoch=self.epoch,
            occurred_at=at,
        )

    def _wait(self, at: datetime) -> None:
        if self.manager_id is not None:
            self.asked = [*self.asked, self.manager_id]
        self.state, self.manager_id, self.due_at, self.claimed_at = "waiting", None, at, None
