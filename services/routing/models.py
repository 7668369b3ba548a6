"""Tables of routing that are read and written through the ORM; the lead's is in `lead.py`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from services.routing.tables import Base

Instant = TIMESTAMP(timezone=True)


class Manager(Base):
    """A sales manager who may be offered leads."""

    __tablename__ = "managers"

    manager_id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    is_active: Mapped[bool]
    calendar: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(Instant)
    version: Mapped[int]
    due_at: Mapped[datetime | None] = mapped_column(Instant)
    capacity: Mapped[int | None]
    weight: Mapped[int] = mapped_column(default=1)
    hourly_limit: Mapped[int | None]
    daily_limit: Mapped[int | None]
    monthly_limit: Mapped[int | None]
    languages: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    zones: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    skills: Mapped[dict[str, int]] = mapped_column(JSONB, default=dict)
    paused_at: Mapped[datetime | None] = mapped_column(Instant)
    paused_until: Mapped[datetime | None] = mapped_column(Instant)
    seen_at: Mapped[datetime | None] = mapped_column(Instant)
    presence: Mapped[str] = mapped_column(default="off_shift")

    def end_pause(self, at: datetime) -> "PastPause | None":
        """End the pause that lasts, or has ended by itself; None: there was none."""
        began, until = self.paused_at, self.paused_until
        self.paused_at = self.paused_until = None
        if began is None or began >= at:
            return None
        ended = at if until is None else min(until, at)
        return PastPause(manager_id=self.manager_id, starts_at=began, ends_at=ended)


class Shift(Base):
    """When a manager is on shift besides their calendar; open-ended until it is ended."""

    __tablename__ = "shifts"

    shift_id: Mapped[UUID] = mapped_column(primary_key=True)
    manager_id: Mapped[UUID]
    starts_at: Mapped[datetime] = mapped_column(Instant)
    ends_at: Mapped[datetime | None] = mapped_column(Instant)
    due_at: Mapped[datetime | None] = mapped_column(Instant)


class PastPause(Base):
    """A pause that is over."""

    __tablename__ = "pauses"

    manager_id: Mapped[UUID] = mapped_column(primary_key=True)
    starts_at: Mapped[datetime] = mapped_column(Instant, primary_key=True)
    ends_at: Mapped[datetime] = mapped_column(Instant)


class Absence(Base):
    """When a manager is not there though their calendar has it."""

    __tablename__ = "absences"

    absence_id: Mapped[UUID] = mapped_column(primary_key=True)
    manager_id: Mapped[UUID]
    starts_at: Mapped[datetime] = mapped_column(Instant)
    ends_at: Mapped[datetime] = mapped_column(Instant)
    is_sick: Mapped[bool]
    note: Mapped[str | None]


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
    ended_how: Mapped[str | None]  # claimed, lapsed, released, declined, superseded, withdrawn
    ended_because: Mapped[str | None]
    rule: Mapped[str | None]
    team: Mapped[str | None]
    strategy: Mapped[str | None]
    sitting_id: Mapped[UUID | None]
    place: Mapped[int | None]
