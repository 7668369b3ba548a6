"""How a lead may change hands.

A lead is `waiting` to be offered, `offered` to one manager, `claimed` by them, `queued` in the
common queue or `muted` for a season; it ends `converted` or `closed`. The methods are the only
ways that people have from one to another; each raises what forbids it and returns the events it
causes. The caller holds the lead's row lock: claim and timeout meet there.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from libs.shared.errors import Conflict
from libs.shared.events import (
    Event,
    LeadAssigned,
    LeadClaimed,
    LeadClosed,
    LeadConverted,
    LeadReleased,
    LeadUnclaimed,
)
from services.routing.models import Instant
from services.routing.tables import Base


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


class LeadNotClaimed(Conflict):
    """Only a lead that was claimed can become a deal; this one is only offered."""

    code = "lead-not-claimed"
    ru = "Сначала заявку нужно взять."


class LeadClaimedAlready(Conflict):
    """This lead was claimed; give it back with release."""

    code = "lead-claimed-already"
    ru = "Заявка уже взята; вернуть её можно через release."


class LeadEnded(Conflict):
    """This lead has become a deal or was closed."""

    code = "lead-ended"
    ru = "Эта заявка уже стала сделкой или закрыта."


HELD = ("offered", "claimed")
ENDED = ("converted", "closed")


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
    is_returning: Mapped[bool]
    kind: Mapped[str]  # request, handoff, complaint
    interaction_id: Mapped[UUID | None]
    product: Mapped[str | None]
    city: Mapped[str | None]
    queued_at: Mapped[datetime | None] = mapped_column(Instant)
    was_left: Mapped[str | None]
    alert_at: Mapped[datetime | None] = mapped_column(Instant)
    alerted_at: Mapped[datetime | None] = mapped_column(Instant)
    ended_at: Mapped[datetime | None] = mapped_column(Instant)
    ended_because: Mapped[str | None]
    deal_id: Mapped[UUID | None]

    def claim(self, *, by: UUID, epoch: int, at: datetime) -> list[Event]:
        """Give the lead to the manager it is offered to; the same claim again changes nothing.

        Raises:
            LeadOfferedToAnother: Somebody else holds it, or nobody yet.
            OfferStale: The epoch is not that of the current offer.
            ClaimWindowClosed: The offer ended at or before `at`.
            LeadEnded: It is done with.
        """
        self.demand_holder(by, epoch)
        if self.state == "claimed":
            return []
        if self.due_at is None or at >= self.due_at:
            raise ClaimWindowClosed(**self.as_it_is())
        self.state, self.claimed_at, self.due_at, self.alert_at = "claimed", at, None, None
        return [self._claimed(by, at)]

    def release(self, *, by: UUID, epoch: int, reason: str, at: datetime) -> list[Event]:
        """Give the lead back; it is offered to the next manager at once.

        Raises:
            LeadOfferedToAnother, OfferStale, LeadEnded: As for `claim`.
        """
        self.demand_holder(by, epoch)
        self._wait(at)
        return [self._released(by, reason, at)]

    def decline(self, *, by: UUID, epoch: int, reason: str, at: datetime) -> list[Event]:
        """Refuse the offer; it goes to the next manager at once.

        Raises:
            LeadClaimedAlready: It was claimed.
            LeadOfferedToAnother, OfferStale, LeadEnded: As for `claim`.
        """
        self.demand_holder(by, epoch)
        if self.state == "claimed":
            raise LeadClaimedAlready(**self.as_it_is())
        return self.release(by=by, epoch=epoch, reason=reason, at=at)

    def take(self, *, by: UUID, at: datetime) -> list[Event]:
        """Take the lead out of the common queue.

        Raises:
            LeadNotQueued: It is not there.
        """
        if self.state != "queued":
            raise LeadNotQueued(**self.as_it_is())
        return [self._assign(by, at, at, "taken from the common queue"), self._take_over(by, at)]

    def assign(self, to: UUID, *, at: datetime, window: timedelta, why: str) -> list[Event]:
        """Offer the lead to a manager of somebody's choice, whoever holds it now.

        Raises:
            LeadEnded: It is done with.
        """
        return [*self._taken_away(why, at), self._assign(to, at, at + window, why)]

    def take_over(self, to: UUID, *, at: datetime, why: str) -> list[Event]:
        """Give the lead to a manager for good, whoever holds it now.

        Raises:
            LeadEnded: It is done with.
        """
        if self.state == "claimed" and self.manager_id == to:
            return []
        return [
            *self._taken_away(why, at),
            self._assign(to, at, at, why),
            self._take_over(to, at),
        ]

    def convert(self, *, by: UUID, epoch: int, deal_id: UUID | None, at: datetime) -> list[Event]:
        """Make a deal of the lead; the same again changes nothing.

        Raises:
            LeadNotClaimed: It is only offered.
            LeadOfferedToAnother, OfferStale, LeadEnded: As for `claim`.
        """
        if self.state == "converted" and (self.manager_id, self.epoch) == (by, epoch):
            return []
        self.demand_holder(by, epoch)
        if self.state != "claimed":
            raise LeadNotClaimed(**self.as_it_is())
        self._end("converted", None, at)
        self.deal_id = deal_id
        return [
            LeadConverted(
                lead_id=self.lead_id,
                client_id=self.client_id,
                manager_id=by,
                epoch=epoch,
                deal_id=deal_id,
                is_returning=self.is_returning,
                occurred_at=at,
            )
        ]

    def close(self, *, reason: str, at: datetime) -> list[Event]:
        """End the lead without a deal; the same again changes nothing.

        Raises:
            LeadEnded: It ended otherwise.
        """
        if self.state == "closed" and self.ended_because == reason:
            return []
        self._demand_open()
        self._end("closed", reason, at)
        return [
            LeadClosed(
                lead_id=self.lead_id,
                client_id=self.client_id,
                manager_id=self.manager_id,
                epoch=self.epoch,
                reason=reason,
                is_returning=self.is_returning,
                occurred_at=at,
            )
        ]

    @property
    def holder(self) -> UUID | None:
        """Whose load it is."""
        return self.manager_id if self.state in HELD else None

    def demand_holder(self, by: UUID, epoch: int) -> None:
        self._demand_open()
        if self.holder != by:
            raise LeadOfferedToAnother(**self.as_it_is())
        if self.epoch != epoch:
            raise OfferStale(**self.as_it_is())

    def _demand_open(self) -> None:
        if self.state in ENDED:
            raise LeadEnded(**self.as_it_is())

    def as_it_is(self) -> dict[str, Any]:
        """What a problem tells of the lead."""
        holder = str(self.manager_id) if self.manager_id else None
        return {"state": self.state, "epoch": self.epoch, "manager_id": holder}

    def _taken_away(self, why: str, at: datetime) -> list[Event]:
        self._demand_open()
        if self.manager_id is None:
            return []
        if self.state == "claimed":
            return [self._released(self.manager_id, why, at)]
        return [
            LeadUnclaimed(
                lead_id=self.lead_id,
                client_id=self.client_id,
                manager_id=self.manager_id,
                epoch=self.epoch,
                occurred_at=at,
            )
        ]

    def _assign(self, to: UUID, at: datetime, until: datetime, why: str) -> LeadAssigned:
        self.state, self.manager_id, self.epoch = "offered", to, self.epoch + 1
        self.due_at, self.claimed_at, self.queued_at, self.was_left = until, None, None, None
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
        self.state, self.claimed_at, self.due_at, self.alert_at = "claimed", at, None, None
        return self._claimed(by, at)

    def _claimed(self, by: UUID, at: datetime) -> LeadClaimed:
        return LeadClaimed(
            lead_id=self.lead_id,
            client_id=self.client_id,
            manager_id=by,
            epoch=self.epoch,
            occurred_at=at,
        )

    def _released(self, by: UUID, reason: str, at: datetime) -> LeadReleased:
        return LeadReleased(
            lead_id=self.lead_id,
            client_id=self.client_id,
            manager_id=by,
            epoch=self.epoch,
            reason=reason,
            occurred_at=at,
        )

    def _wait(self, at: datetime) -> None:
        if self.manager_id is not None:
            self.asked = [*self.asked, self.manager_id]
        self.state, self.manager_id, self.due_at, self.claimed_at = "waiting", None, at, None

    def _end(self, state: str, reason: str | None, at: datetime) -> None:
        self.state, self.ended_at, self.ended_because = state, at, reason
        self.due_at, self.alert_at, self.queued_at = None, None, None
