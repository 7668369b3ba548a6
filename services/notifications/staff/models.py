"""Tables of staff alerts that the API reads through the ORM."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from services.notifications.models import Instant
from services.notifications.tables import Base


class StaffMember(Base):
    """Somebody of the company and where they are reached."""

    __tablename__ = "staff"

    staff_id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int]
    name: Mapped[str]
    email: Mapped[str | None]
    second_channel: Mapped[str | None]
    language: Mapped[str | None]
    is_supervisor: Mapped[bool]
    is_active: Mapped[bool]
    changed_at: Mapped[datetime] = mapped_column(Instant)


class Alert(Base):
    """One thing that one person is told by one channel."""

    __tablename__ = "alerts"

    alert_id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    subject_id: Mapped[UUID]
    subject_no: Mapped[int]
    client_id: Mapped[UUID]
    manager_id: Mapped[UUID | None]
    due_on: Mapped[date | None]
    since: Mapped[datetime] = mapped_column(Instant)
    staff_id: Mapped[UUID]
    channel: Mapped[str]
    template: Mapped[str]
    policy_version: Mapped[int]
    planned_for: Mapped[datetime] = mapped_column(Instant)
    stale_at: Mapped[datetime] = mapped_column(Instant)
    due_at: Mapped[datetime | None] = mapped_column(Instant)
    state: Mapped[str]
    reason: Mapped[str | None]
    over_at: Mapped[datetime | None] = mapped_column(Instant)
    message_id: Mapped[UUID | None]
    changed_at: Mapped[datetime] = mapped_column(Instant)
