"""Tables of interactions and promises, and how a planned one may go on.

A planned meeting or call may be moved any number of times and ends held or cancelled; both are
final. What was recorded has happened and never changes.
"""

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import SmallInteger, Text
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from libs.shared.errors import Conflict, Invalid, NotFound
from libs.shared.events import (
    InteractionCancelled,
    InteractionHeld,
    InteractionMoved,
    InteractionPlanned,
    InteractionRecorded,
    Promised,
)
from services.contacts.tables import Base

Instant = TIMESTAMP(timezone=True)


class InteractionNotFound(NotFound):
    """There is no interaction with this id."""

    code = "interaction-not-found"
    ru = "Такого события в истории нет."


class InteractionNotPlanned(Conflict):
    """Only what is still planned can be moved, cancelled or held; `state` says what it is."""

    code = "interaction-not-planned"
    ru = "Перенести, отменить или провести можно только запланированное."


class StartsInPast(Invalid):
    """What is planned must lie in the future."""

    code = "starts-in-past"
    ru = "Запланировать можно только на будущее."


class HappenedInFuture(Invalid):
    """What has happened cannot lie in the future; plan it instead."""

    code = "happened-in-future"
    ru = "Произошедшее не может быть в будущем: запланируйте его."


class PromiseNotFound(NotFound):
    """There is no promise with this id."""

    code = "promise-not-found"
    ru = "Такого обещания нет."


class PromiseIsKept(Conflict):
    """The promise is kept already."""

    code = "promise-kept"
    ru = "Обещание уже выполнено."


class Interaction(Base):
    """A call, meeting, message, letter, visit, complaint, review or note; `at`: when it is."""

    __tablename__ = "interactions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    client_id: Mapped[UUID]
    version: Mapped[int]
    kind: Mapped[str]
    state: Mapped[str]  # recorded, planned, held, cancelled
    direction: Mapped[str]  # incoming, outgoing, none
    at: Mapped[datetime] = mapped_column(Instant)
    duration_minutes: Mapped[int | None]
    topic: Mapped[str]
    outcome: Mapped[str | None]
    objections: Mapped[list[str]] = mapped_column(ARRAY(Text))
    agreements: Mapped[list[str]] = mapped_column(ARRAY(Text))
    manager_id: Mapped[UUID | None]
    moves: Mapped[int]
    reason: Mapped[str | None]  # of the last move or of the cancellation
    rating: Mapped[int | None] = mapped_column(SmallInteger)  # of a review, 5 is best
    source: Mapped[str | None]
    external_id: Mapped[str | None]
    recorded_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(Instant)

    def recorded(self, promises: Sequence["Promise"] = ()) -> InteractionRecorded:
        """The event of what has just been written down, with what was promised in it."""
        return InteractionRecorded(
            interaction_id=self.id,
            client_id=self.client_id,
            kind=self.kind,
            direction=self.direction,
            manager_id=self.manager_id,
            happened_at=self.at,
            topic_text=self.topic,
            rating=self.rating,
            promises=[Promised(text=promise.text, due_on=promise.due_on) for promise in promises],
            occurred_at=self.created_at,
        )

    def planned(self) -> InteractionPlanned:
        """The event of what has just been planned."""
        return InteractionPlanned(
            interaction_id=self.id,
            client_id=self.client_id,
            version=self.version,
            kind=self.kind,
            manager_id=self.manager_id,
            starts_at=self.at,
            topic_text=self.topic,
            occurred_at=self.created_at,
        )

    def move(self, starts_at: datetime, *, reason: str, at: datetime) -> InteractionMoved:
        """Give it another time.

        Raises:
            InteractionNotPlanned: It is held, cancelled or was never planned.
            StartsInPast: The new time is over.
        """
        self._demand_planned()
        demand_future(starts_at, now=at)
        before, self.at = self.at, starts_at
        self.reason = reason
        self.moves += 1
        self.version += 1
        return InteractionMoved(
            interaction_id=self.id,
            client_id=self.client_id,
            version=self.version,
            kind=self.kind,
            manager_id=self.manager_id,
            previous_starts_at=before,
            starts_at=starts_at,
            topic_text=self.topic,
            reason=reason,
            occurred_at=at,
        )

    def cancel(self, *, reason: str, at: datetime) -> InteractionCancelled:
        """Call it off.

        Raises:
            InteractionNotPlanned: It is held or cancelled already, or was never planned.
        """
        self._demand_planned()
        self.state, self.reason = "cancelled", reason
        self.version += 1
        return InteractionCancelled(
            interaction_id=self.id,
            client_id=self.client_id,
            version=self.version,
            reason=reason,
            occurred_at=at,
        )

    def hold(self, *, outcome: str, held_at: datetime, at: datetime) -> InteractionHeld:
        """Note that it took place, and what came of it.

        Raises:
            InteractionNotPlanned: It is held or cancelled already, or was never planned.
            HappenedInFuture: `held_at` is later than now.
        """
        self._demand_planned()
        demand_past(held_at, now=at, pointer="/held_at")
        self.state, self.outcome, self.at = "held", outcome, held_at
        self.version += 1
        return InteractionHeld(
            interaction_id=self.id,
            client_id=self.client_id,
            version=self.version,
            kind=self.kind,
            manager_id=self.manager_id,
            held_at=held_at,
            outcome=outcome,
            occurred_at=at,
        )

    def _demand_planned(self) -> None:
        if self.state != "planned":
            raise InteractionNotPlanned(state=self.state)


class Promise(Base):
    """What was promised to a client until a day; open until it is kept."""

    __tablename__ = "promises"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    interaction_id: Mapped[UUID]
    client_id: Mapped[UUID]
    owner_id: Mapped[UUID | None]
    text: Mapped[str]
    due_on: Mapped[date]
    kept_at: Mapped[datetime | None] = mapped_column(Instant)

    def keep(self, *, at: datetime) -> None:
        """Note that it is done.

        Raises:
            PromiseIsKept: It was done already.
        """
        if self.kept_at is not None:
            raise PromiseIsKept(kept_at=self.kept_at.isoformat())
        self.kept_at = at


def demand_future(starts_at: datetime, *, now: datetime) -> None:
    """Check a time to plan for.

    Raises:
        StartsInPast: It is over.
    """
    if starts_at <= now:
        raise StartsInPast(pointer="/starts_at")


def demand_past(at: datetime, *, now: datetime, pointer: str = "/happened_at") -> None:
    """Check a time at which something has happened.

    Raises:
        HappenedInFuture: It is still to come.
    """
    if at > now:
        raise HappenedInFuture(pointer=pointer)
