"""Tables of flags and of the decisions that settle them."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import BigInteger
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from services.scoring.tables import Base

Instant = TIMESTAMP(timezone=True)


class SegmentFlag(Base):
    """A segment called wrong, with the figures that it was given for; open until decided."""

    __tablename__ = "segment_flags"

    flag_id: Mapped[UUID] = mapped_column(primary_key=True)
    client_id: Mapped[UUID]
    raised_by: Mapped[UUID | None]  # a manager
    raised_at: Mapped[datetime] = mapped_column(Instant)
    reason: Mapped[str]
    note: Mapped[str]
    segment: Mapped[str]
    should_be: Mapped[str | None]
    rule_version: Mapped[int]
    recency_days: Mapped[int]
    frequency: Mapped[int]
    monetary_minor: Mapped[int] = mapped_column(BigInteger)
    decision_id: Mapped[UUID | None]


class SegmentDecision(Base):
    """What was decided about some flags; never changes."""

    __tablename__ = "segment_decisions"

    decision_id: Mapped[UUID] = mapped_column(primary_key=True)
    verdict: Mapped[str]  # rules_changed, overridden, rejected
    note: Mapped[str]
    rule_version: Mapped[int | None]
    override_segment: Mapped[str | None]
    override_until: Mapped[date | None]
    decided_at: Mapped[datetime] = mapped_column(Instant)
    decided_by: Mapped[str]
