"""HTTP in: reminders and the delivery ledger."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Select, select

from libs.shared.audit import record
from libs.shared.auth import Principal, Role, require
from libs.shared.errors import NotFound
from libs.shared.http import (
    Cursor,
    CursorInvalid,
    CursorText,
    Limit,
    Now,
    Page,
    Session,
    page_of,
    problems,
    router,
)
from services.notifications.models import Delivery, Reminder
from services.notifications.reminder_policy import Channel
from services.notifications.second_try import DeliveryOutdated, DeliverySettled, try_again

routes = router(prefix="/v1", tags=["notifications"])

READERS = (Role.MANAGER, Role.SUPERVISOR, Role.ANALYST, Role.MARKETER, Role.INTEGRATION)
Reader = Annotated[Principal, Depends(require(*READERS, Role.SUPPORT))]
Operator = Annotated[Principal, Depends(require(Role.SUPERVISOR))]

ReminderState = Literal["planned", "sending", "sent", "failed", "unknown", "cancelled", "skipped"]
DeliveryState = Literal["queued", "sending", "sent", "failed", "unknown", "cancelled"]


class DeliveryNotFound(NotFound):
    """There is no message with this id."""

    code = "delivery-not-found"
    ru = "Такого сообщения нет."


class ReminderView(BaseModel):
    """One stage of the policy for one version of a meeting.

    Attributes:
        planned_for: The instant that the policy asks for.
        due_at: When it is looked at next; null once it is no longer planned.
        reason: Why it was cancelled, skipped (its time had passed already) or failed.
    """

    model_config = ConfigDict(from_attributes=True)

    reminder_id: UUID
    interaction_id: UUID
    interaction_version: int
    client_id: UUID
    stage: str
    channel: Channel
    template: str
    policy_version: int
    planned_for: datetime
    due_at: datetime | None
    state: ReminderState
    reason: str | None
    changed_at: datetime


class DeliveryView(BaseModel):
    """A line of the ledger.

    Attributes:
        message_id: Also the mail's Message-ID and the second channel's id.
        staff_id: Whom of the staff it goes to; then it is about no client and reminder alone.
        state: `unknown`: given up, but the provider may have it.
        due_at: When the next attempt is.
    """

    model_config = ConfigDict(from_attributes=True)

    message_id: UUID
    reminder_id: UUID | None
    client_id: UUID | None
    interaction_id: UUID | None
    interaction_version: int | None
    staff_id: UUID | None
    channel: Channel
    template: str
    template_version: int
    language: str
    state: DeliveryState
    attempts: int
    due_at: datetime | None
    provider_id: str | None
    reason: str | None
    created_at: datetime
    settled_at: datetime | None


class DeliveryDetail(DeliveryView):
    """With the text as it went, or is to go."""

    subject: str
    body: str


class ReminderFilters(BaseModel):
    """What reminders are narrowed by."""

    client_id: UUID | None = None
    interaction_id: UUID | None = None
    state: ReminderState | None = None


class DeliveryFilters(BaseModel):
    """What the ledger is narrowed by."""

    client_id: UUID | None = None
    interaction_id: UUID | None = None
    staff_id: UUID | None = None
    state: DeliveryState | None = None
    channel: Channel | None = None


@routes.get(
    "/reminders",
    response_model=Page[ReminderView],
    responses=problems(CursorInvalid),
    summary="Reminders, the newest first",
)
async def list_reminders(
    session: Session,
    _user: Reader,
    filters: Annotated[ReminderFilters, Depends()],
    cursor: CursorText = None,
    limit: Limit = 50,
) -> Page[ReminderView]:
    narrowed = filters.model_dump()
    query = _narrowed(select(Reminder), Reminder, narrowed)
    last = Cursor.decode(cursor, tuple[UUID], narrowed)
    if last:
        query = query.where(Reminder.reminder_id < last[0])
    rows = await session.scalars(query.order_by(Reminder.reminder_id.desc()).limit(limit + 1))
    return page_of(
        rows.all(),
        limit=limit,
        view=ReminderView.model_validate,
        sort_values=lambda row: [row.reminder_id],
        filters=narrowed,
    )


@routes.get(
    "/deliveries",
    response_model=Page[DeliveryView],
    responses=problems(CursorInvalid),
    summary="The delivery ledger, the newest message first",
)
async def list_deliveries(
    session: Session,
    _user: Reader,
    filters: Annotated[DeliveryFilters, Depends()],
    cursor: CursorText = None,
    limit: Limit = 50,
) -> Page[DeliveryView]:
    narrowed = filters.model_dump()
    query = _narrowed(select(Delivery), Delivery, narrowed)
    last = Cursor.decode(cursor, tuple[UUID], narrowed)
    if last:
        query = query.where(Delivery.message_id < last[0])
    rows = await session.scalars(query.order_by(Delivery.message_id.desc()).limit(limit + 1))
    return page_of(
        rows.all(),
        limit=limit,
        view=DeliveryView.model_validate,
        sort_values=lambda row: [row.message_id],
        filters=narrowed,
    )


@routes.get(
    "/deliveries/{message_id}",
    response_model=DeliveryDetail,
    responses=problems(DeliveryNotFound),
    summary="One message with its text",
)
async def show_delivery(message_id: UUID, session: Session, _user: Reader) -> Delivery:
    return await _delivery(session, message_id)


@routes.post(
    "/deliveries/{message_id}/retry",
    response_model=DeliveryView,
    status_code=202,
    responses=problems(DeliveryNotFound, DeliverySettled, DeliveryOutdated),
    summary="Make a failed message anew and try it again, under the same id",
)
async def retry_delivery(message_id: UUID, session: Session, user: Operator, now: Now) -> Delivery:
    delivery = await _delivery(session, message_id)
    await try_again(session, delivery, now=now)
    await record(
        session,
        action="delivery.retried",
        subject_type="delivery",
        subject_id=str(message_id),
        at=now,
        actor=user.subject,
    )
    return delivery


async def _delivery(session: Session, message_id: UUID) -> Delivery:
    found = await session.get(Delivery, message_id)
    if found is None:
        raise DeliveryNotFound(message_id=str(message_id))
    return found


def _narrowed(query: Select[Any], table: Any, filters: dict[str, Any]) -> Select[Any]:
    for name, value in filters.items():
        if value is not None:
            query = query.where(getattr(table, name) == value)
    return query
