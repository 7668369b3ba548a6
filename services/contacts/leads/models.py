"""Leads as they are read. Written by `intake.py`, `routing_heard.py` and complaints, set by set."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, SmallInteger, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import Mapped, mapped_column

from libs.shared.errors import NotFound
from services.contacts.tables import Base

Instant = TIMESTAMP(timezone=True)


class LeadNotFound(NotFound):
    """There is no lead with this id."""

    code = "lead-not-found"
    ru = "Такого лида нет."


class Lead(Base):
    """Somebody who asked for contact, and where routing has brought them."""

    __tablename__ = "leads"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    client_id: Mapped[UUID]
    source: Mapped[str]
    channel: Mapped[str]
    name: Mapped[str | None]
    phones: Mapped[list[str]] = mapped_column(ARRAY(Text))
    email: Mapped[str | None]
    note: Mapped[str | None]
    product: Mapped[str | None]
    city: Mapped[str | None]
    language: Mapped[str | None]
    utm: Mapped[dict[str, Any]] = mapped_column(JSONB)
    consents: Mapped[dict[str, Any]] = mapped_column(JSONB)
    is_returning: Mapped[bool]
    received_at: Mapped[datetime] = mapped_column(Instant)
    state: Mapped[str]  # received, assigned, claimed, waiting, converted, closed
    manager_id: Mapped[UUID | None]
    epoch: Mapped[int]  # of the last offer heard of
    step: Mapped[int] = mapped_column(SmallInteger)
    webhook_request_id: Mapped[int | None] = mapped_column(BigInteger)
    region: Mapped[str | None]
    domain: Mapped[str | None]
    amount_minor: Mapped[int | None] = mapped_column(BigInteger)
    currency: Mapped[str | None]
    complexity: Mapped[str | None]
    kind: Mapped[str]  # request, handoff, complaint
    interaction_id: Mapped[UUID | None]


class WebhookRequest(Base):
    """A verified request as it came; see plumbing_v1.sql."""

    __tablename__ = "webhook_requests"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    source: Mapped[str]
    external_id: Mapped[str]
    body: Mapped[bytes]
    received_at: Mapped[datetime] = mapped_column(Instant)
    due_at: Mapped[datetime | None] = mapped_column(Instant)
    attempts: Mapped[int]
    outcome: Mapped[str | None]
