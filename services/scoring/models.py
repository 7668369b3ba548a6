"""Tables of scoring that the API reads through the ORM. Hot paths use SQL of their own."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, SmallInteger, Text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from services.scoring.tables import Base

Instant = TIMESTAMP(timezone=True)


class RuleSetVersion(Base):
    """A version of the RFM rules; `cuts` are set when it is activated and never change then."""

    __tablename__ = "rule_sets"

    version: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]  # draft, active, retired
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)
    cuts: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(Instant)
    created_by: Mapped[str]
    activated_at: Mapped[datetime | None] = mapped_column(Instant)
    activated_by: Mapped[str | None]


class RulePreview(Base):
    """What a draft would have done at a moment; `cuts` are those it would have got."""

    __tablename__ = "rule_previews"

    preview_id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int]
    cuts: Mapped[dict[str, Any]] = mapped_column(JSONB)
    moves: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    made_at: Mapped[datetime] = mapped_column(Instant)
    made_by: Mapped[str]


class RuleChange(Base):
    """The work that activating a version leaves: everybody is rated under it, in stretches.

    Attributes:
        counts_anew: Figures stored under the version before do not serve this one.
        renames: Some ratings make another segment than under the version before.
        comes_nearer: Some clients' next boundary may be nearer than under the version before.
        fence: Transactions that may still know the rules before.
        after_client_id: Everybody up to and including this client has been rated.
    """

    __tablename__ = "rule_changes"

    version: Mapped[int] = mapped_column(primary_key=True)
    counts_anew: Mapped[bool]
    renames: Mapped[bool]
    comes_nearer: Mapped[bool]
    state: Mapped[str]  # waiting, running, boundaries, finished, superseded
    due_at: Mapped[datetime | None] = mapped_column(Instant)
    activated_at: Mapped[datetime] = mapped_column(Instant)
    fence: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    after_client_id: Mapped[UUID | None]
    checked: Mapped[int]
    moved: Mapped[int]
    rated_at: Mapped[datetime | None] = mapped_column(Instant)
    finished_at: Mapped[datetime | None] = mapped_column(Instant)


class Score(Base):
    """A client's standing on the day `as_of`; still holds today unless `due_at` has passed.

    `rule_version` is the one under which it was written last. Later versions that changed nothing
    about it have not touched it.
    """

    __tablename__ = "scores"

    client_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int]
    segment: Mapped[str | None]
    recency_score: Mapped[int | None] = mapped_column(SmallInteger)
    frequency_score: Mapped[int | None] = mapped_column(SmallInteger)
    monetary_score: Mapped[int | None] = mapped_column(SmallInteger)
    last_day: Mapped[date | None]
    frequency: Mapped[int | None]
    monetary_minor: Mapped[int | None] = mapped_column(BigInteger)
    oldest_day: Mapped[date | None]
    monthly_run: Mapped[int | None] = mapped_column(SmallInteger)
    as_of: Mapped[date]
    rule_version: Mapped[int]
    due_at: Mapped[datetime | None] = mapped_column(Instant)
    override_segment: Mapped[str | None]
    override_until: Mapped[date | None]


class SegmentMove(Base):
    """One line of a client's segment history, as it was said by segment.changed."""

    __tablename__ = "segment_history"

    client_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    old_segment: Mapped[str | None]
    new_segment: Mapped[str | None]
    recency_score: Mapped[int | None] = mapped_column(SmallInteger)
    frequency_score: Mapped[int | None] = mapped_column(SmallInteger)
    monetary_score: Mapped[int | None] = mapped_column(SmallInteger)
    rule_version: Mapped[int]
    as_of: Mapped[date]
    changed_at: Mapped[datetime] = mapped_column(Instant)
    reason: Mapped[str]


class Rescoring(Base):
    """A full rescoring: everything computed again from the bare purchases, and compared."""

    __tablename__ = "rescorings"

    rescoring_id: Mapped[UUID] = mapped_column(primary_key=True)
    state: Mapped[str]  # running, finished
    requested_at: Mapped[datetime] = mapped_column(Instant)
    requested_by: Mapped[str]
    due_at: Mapped[datetime | None] = mapped_column(Instant)
    after_client_id: Mapped[UUID | None]
    checked: Mapped[int]
    mismatches: Mapped[int]
    history_mismatches: Mapped[int]
    finished_at: Mapped[datetime | None] = mapped_column(Instant)
