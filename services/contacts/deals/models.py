"""Tables of deals, and how a deal may go. Batches go by SQL of their own."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from libs.shared.errors import Conflict, Invalid, NotFound
from libs.shared.events import (
    DealClosed,
    DealLost,
    DealOpened,
    DealReversed,
    DealStageChanged,
)
from libs.shared.ids import new_id
from services.contacts.tables import Base

Instant = TIMESTAMP(timezone=True)


class DealNotFound(NotFound):
    """There is no deal with this id."""

    code = "deal-not-found"
    ru = "Такой сделки нет."


class DealIsClosed(Conflict):
    """The deal is closed: it can be reversed if it was won, not changed."""

    code = "deal-closed"
    ru = "Сделка закрыта: выигранную можно вернуть, изменить уже нельзя."


class DealNotWon(Conflict):
    """Only a won deal can be reversed."""

    code = "deal-not-won"
    ru = "Вернуть можно только выигранную сделку."


class ReturnTooLarge(Conflict):
    """More would be given back than was paid; `left_minor` says what is left."""

    code = "return-exceeds-amount"
    ru = "Возвращается больше, чем осталось от суммы сделки."


class ClosedInFuture(Invalid):
    """A deal cannot have been closed in the future."""

    code = "closed-in-future"
    ru = "Сделка не может быть закрыта в будущем."


class ClosedBeforeOpened(Invalid):
    """A deal cannot have been closed before it was opened."""

    code = "closed-before-opened"
    ru = "Сделка не может быть закрыта раньше, чем открыта."


@dataclass(frozen=True, slots=True)
class Price:
    """What a deal is worth, in minor units of the currency."""

    amount_minor: int
    currency: str


class Deal(Base):
    """A deal: open, then won or lost for good; a won one may be reversed."""

    __tablename__ = "deals"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    client_id: Mapped[UUID]
    version: Mapped[int]
    state: Mapped[str]  # open, won, lost
    title: Mapped[str | None]
    pipeline: Mapped[str]
    stage: Mapped[str]
    amount_minor: Mapped[int | None] = mapped_column(BigInteger)
    currency: Mapped[str | None]
    returned_minor: Mapped[int] = mapped_column(BigInteger)
    manager_id: Mapped[UUID | None]
    opened_at: Mapped[datetime] = mapped_column(Instant)
    closed_at: Mapped[datetime | None] = mapped_column(Instant)
    reason: Mapped[str | None]
    source: Mapped[str | None]
    external_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(Instant)

    def opened(self) -> DealOpened:
        """The event of a deal that has just been made."""
        return DealOpened(
            deal_id=self.id,
            client_id=self.client_id,
            pipeline=self.pipeline,
            stage=self.stage,
            manager_id=self.manager_id,
            occurred_at=self.created_at,
        )

    def move(self, stage: str, *, at: datetime) -> DealStageChanged | None:
        """Bring the deal to another stage, forward or back; None when it is there already.

        Raises:
            DealIsClosed: It is won or lost.
        """
        self._demand_open()
        if stage == self.stage:
            return None
        before, self.stage = self.stage, stage
        self.version += 1
        return DealStageChanged(
            deal_id=self.id,
            client_id=self.client_id,
            pipeline=self.pipeline,
            previous_stage=before,
            stage=stage,
            manager_id=self.manager_id,
            occurred_at=at,
        )

    def win(self, price: Price, *, closed_at: datetime, at: datetime) -> DealClosed:
        """Close the deal with money.

        Raises:
            DealIsClosed: It is closed already.
            ClosedInFuture, ClosedBeforeOpened: The date is not possible.
        """
        self._close("won", closed_at, at)
        self.amount_minor, self.currency = price.amount_minor, price.currency
        return DealClosed(
            deal_id=self.id,
            client_id=self.client_id,
            closed_at=closed_at,
            amount_minor=price.amount_minor,
            currency=price.currency,
            manager_id=self.manager_id,
            occurred_at=at,
        )

    def lose(self, reason: str, *, closed_at: datetime, at: datetime) -> DealLost:
        """Close the deal without money.

        Raises:
            DealIsClosed: It is closed already.
            ClosedInFuture, ClosedBeforeOpened: The date is not possible.
        """
        self._close("lost", closed_at, at)
        self.reason = reason
        return DealLost(
            deal_id=self.id,
            client_id=self.client_id,
            closed_at=closed_at,
            reason=reason,
            manager_id=self.manager_id,
            occurred_at=at,
        )

    def reverse(self, amount_minor: int | None, *, reason: str, at: datetime) -> DealReversed:
        """Give money back; several times, up to the amount.

        Args:
            amount_minor: None for all that is left.

        Raises:
            DealNotWon: There is no purchase to take back.
            ReturnTooLarge: More than is left, or nothing is left.
        """
        if self.state != "won" or self.amount_minor is None or self.currency is None:
            raise DealNotWon(state=self.state)
        left = self.amount_minor - self.returned_minor
        given_back = left if amount_minor is None else amount_minor
        if given_back > left or (left == 0 and self.stage == RETURNED):
            raise ReturnTooLarge(left_minor=left)
        is_full = given_back == left
        self.returned_minor += given_back
        if is_full:
            self.stage = RETURNED
        self.version += 1
        return DealReversed(
            reversal_id=new_id(),
            deal_id=self.id,
            client_id=self.client_id,
            reversed_at=at,
            amount_minor=given_back,
            currency=self.currency,
            is_full=is_full,
            reason=reason,
            occurred_at=at,
        )

    def _close(self, state: str, closed_at: datetime, at: datetime) -> None:
        self._demand_open()
        demand_possible_closing(closed_at, opened_at=self.opened_at, now=at)
        self.state, self.closed_at = state, closed_at
        self.version += 1

    def _demand_open(self) -> None:
        if self.state != "open":
            raise DealIsClosed(state=self.state)


RETURNED = "returned"  # the stage of a deal that was wholly given back; also one of nothing


class Reversal(Base):
    """One giving back of money."""

    __tablename__ = "reversals"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    deal_id: Mapped[UUID]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    is_full: Mapped[bool]
    reason: Mapped[str]
    reversed_at: Mapped[datetime] = mapped_column(Instant)
    reversed_by: Mapped[str]


def demand_possible_closing(
    closed_at: datetime, *, opened_at: datetime | None, now: datetime
) -> None:
    """Check when a deal is said to have been closed; years ago is fine.

    Raises:
        ClosedInFuture: Later than now.
        ClosedBeforeOpened: Earlier than it was opened.
    """
    if closed_at > now:
        raise ClosedInFuture(pointer="/closed_at")
    if opened_at is not None and closed_at < opened_at:
        raise ClosedBeforeOpened(pointer="/closed_at")
