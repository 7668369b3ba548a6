"""HTTP in: the directory of staff, and what they are told."""

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends
from pydantic import AfterValidator, BaseModel, ConfigDict
from sqlalchemy import select
from starlette.responses import Response

from libs.shared.auth import Principal, Role, require
from libs.shared.errors import PreconditionFailed
from libs.shared.http import (
    Cursor,
    CursorInvalid,
    CursorText,
    Flag,
    IfMatch,
    Limit,
    Now,
    Page,
    Request,
    Session,
    Text200,
    page_of,
    problems,
    router,
    set_etag,
)
from services.notifications.mail import recipient_of
from services.notifications.reminder_policy import Channel, Language
from services.notifications.staff.directory import StaffNotFound, find, write
from services.notifications.staff.models import Alert, StaffMember
from services.notifications.staff.policy import Kind

routes = router(prefix="/v1", tags=["staff"])

Reader = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR, Role.SUPPORT))]
Writer = Annotated[Principal, Depends(require(Role.SUPERVISOR, Role.INTEGRATION))]
AlertState = Literal["planned", "sending", "sent", "failed", "unknown", "cancelled"]


def _mail_address(address: str) -> str:
    recipient_of(address)
    return address


class WriteStaff(Request):
    """Somebody of the company, whole.

    Attributes:
        second_channel: A phone (E.164), or `messenger:profile`.
        is_supervisor: Told of what a rule of the policy `staff_alerts` tells supervisors.
        is_active: Who is not is told nothing any more.
    """

    name: Text200
    email: Annotated[Text200, AfterValidator(_mail_address)] | None = None
    second_channel: Text200 | None = None
    language: Language | None = None
    is_supervisor: Flag = False
    is_active: Flag = True


class StaffView(BaseModel):
    """Somebody of the company; of a manager the id is that of the events."""

    model_config = ConfigDict(from_attributes=True)

    staff_id: UUID
    version: int
    name: str
    email: str | None
    second_channel: str | None
    language: str | None
    is_supervisor: bool
    is_active: bool
    changed_at: datetime


class AlertView(BaseModel):
    """One thing that one person is told by one channel.

    Attributes:
        subject_id: The lead, or the client of a touch.
        subject_no: Number of the touch; 0 for a lead.
        since: When it happened.
        reason: Why it was cancelled or failed.
        over_at: When somebody had acted.
        message_id: Of the delivery that tells it, with others or alone.
    """

    model_config = ConfigDict(from_attributes=True)

    alert_id: UUID
    kind: Kind
    subject_id: UUID
    subject_no: int
    client_id: UUID
    manager_id: UUID | None
    due_on: date | None
    since: datetime
    staff_id: UUID
    channel: Channel
    template: str
    policy_version: int
    planned_for: datetime
    due_at: datetime | None
    state: AlertState
    reason: str | None
    over_at: datetime | None
    message_id: UUID | None


class AlertFilters(BaseModel):
    """What alerts are narrowed by."""

    staff_id: UUID | None = None
    subject_id: UUID | None = None
    kind: Kind | None = None
    state: AlertState | None = None


@routes.get(
    "/staff",
    response_model=Page[StaffView],
    responses=problems(CursorInvalid),
    summary="The directory of staff, by id",
)
async def list_staff(
    session: Session, _user: Reader, cursor: CursorText = None, limit: Limit = 50
) -> Page[StaffView]:
    query = select(StaffMember)
    after = Cursor.decode(cursor, tuple[UUID])
    if after:
        query = query.where(StaffMember.staff_id > after[0])
    rows = await session.scalars(query.order_by(StaffMember.staff_id).limit(limit + 1))
    return page_of(
        rows.all(),
        limit=limit,
        view=StaffView.model_validate,
        sort_values=lambda row: [row.staff_id],
    )


@routes.get(
    "/staff/{staff_id}",
    response_model=StaffView,
    responses=problems(StaffNotFound),
    summary="Somebody of the directory; their ETag is what a change must name",
)
async def show_staff(
    staff_id: UUID, session: Session, _user: Reader, response: Response
) -> StaffMember:
    found = await find(session, staff_id)
    set_etag(response, found.version)
    return found


@routes.put(
    "/staff/{staff_id}",
    response_model=StaffView,
    responses=problems(PreconditionFailed),
    summary="Enter or change somebody; `If-Match: *` enters somebody new",
)
async def write_staff(
    staff_id: UUID,
    wanted: WriteStaff,
    expected: IfMatch,
    session: Session,
    user: Writer,
    now: Now,
    response: Response,
) -> StaffMember:
    made = await write(
        session, staff_id, wanted.model_dump(), expected=expected, by=user.subject, at=now
    )
    set_etag(response, made.version)
    return made


@routes.get(
    "/alerts",
    response_model=Page[AlertView],
    responses=problems(CursorInvalid),
    summary="What staff are told, the newest first",
)
async def list_alerts(
    session: Session,
    _user: Reader,
    filters: Annotated[AlertFilters, Depends()],
    cursor: CursorText = None,
    limit: Limit = 50,
) -> Page[AlertView]:
    narrowed = filters.model_dump()
    query = select(Alert)
    for name, value in narrowed.items():
        if value is not None:
            query = query.where(getattr(Alert, name) == value)
    last = Cursor.decode(cursor, tuple[UUID], narrowed)
    if last:
        query = query.where(Alert.alert_id < last[0])
    rows = await session.scalars(query.order_by(Alert.alert_id.desc()).limit(limit + 1))
    return page_of(
        rows.all(),
        limit=limit,
        view=AlertView.model_validate,
        sort_values=lambda row: [row.alert_id],
        filters=narrowed,
    )
