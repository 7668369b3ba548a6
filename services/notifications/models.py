"""Tables of notifications that the API reads through the ORM. Hot paths use SQL of their own."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from services.notifications.tables import Base

Instant = TIMESTAMP(timezone=True)


class Reminder(Base):
    """One stage of the policy for one version of a meeting."""

    __tablename__ = "reminders"

    reminder_id: Mapped[UUID] = mapped_column(primary_key=True)
    interaction_id: Mapped[UUID]
    interaction_version: Mapped[int]
    client_id: Mapped[UUID]
    stage: Mapped[str]
    channel: Mapped[str]
    template: Mapped[str]
    policy_version: Mapped[int]
    planned_for: Mapped[datetime] = mapped_column(Instant)
    due_at: Mapped[datetime | None] = mapped_column(Instant)
    state: Mapped[str]
    reason: Mapped[str | None]
    changed_at: Mapped[datetime] = mapped_column(Instant)


class TemplateVersion(Base):
    """A company's own version of a template; the shipped one is version 1, in the code."""

    __tablename__ = "templates"

    code: Mapped[str] = mapped_column(primary_key=True)
    channel: Mapped[str] = mapped_column(primary_key=True)
    language: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    subject: Mapped[str]
    body: Mapped[str]
    changed_at: Mapped[datetime] = mapped_column(Instant)
    changed_by: Mapped[str]


class Delivery(Base):
    """One message to a client or to staff: the line of the ledger and the work item in one."""

    __tablename__ = "deliveries"

    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    reminder_id: Mapped[UUID | None]
    client_id: Mapped[UUID | None]
    interaction_id: Mapped[UUID | None]
    interaction_version: Mapped[int | None]
    staff_id: Mapped[UUID | None]
    channel: Mapped[str]
    template: Mapped[str]
    template_version: Mapped[int]
    language: Mapped[str]
    address: Mapped[str | None]
    subject: Mapped[str]
    body: Mapped[str]
    state: Mapped[str]
    attempts: Mapped[int]
    due_at: Mapped[datetime | None] = mapped_column(Instant)
    leased_until: Mapped[datetime | None] = mapped_column(Instant)
    may_have_gone: Mapped[bool]
    provider_id: Mapped[str | None]
    reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(Instant)
    settled_at: Mapped[datetime | None] = mapped_column(Instant)
    opened_at: Mapped[datetime | None] = mapped_column(Instant)
