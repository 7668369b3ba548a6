"""HTTP in: what mail and messenger providers tell of messages that they have taken over."""

from uuid import UUID

from fastapi import Request as HttpRequest
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.responses import JSONResponse, Response

from libs.shared import webhooks
from libs.shared.errors import Invalid
from libs.shared.field_types import Instant, Text50
from libs.shared.http import Db, Now, problems, router
from libs.shared.policies import current
from services.notifications.opened import MessageNotFound, OpeningPolicy, note_opened
from services.notifications.settings import NotificationsSettings

routes = router(prefix="/v1", tags=["messages"])


class ReportUnreadable(Invalid):
    """The report is not JSON with `message_id`, `event` and `at`."""

    code = "report-unreadable"
    ru = "Отчёт не читается: нужны message_id, event и at."


class Report(BaseModel):
    """What has happened to a message; other members are not looked at."""

    model_config = ConfigDict(extra="ignore")

    message_id: UUID
    event: Text50
    at: Instant


class Noted(BaseModel):
    """Whether the report told anything new."""

    is_new: bool


@routes.post(
    "/webhooks/messages/{source}",
    response_model=Noted,
    responses=problems(
        webhooks.WebhookSourceUnknown,
        MessageNotFound,
        ReportUnreadable,
        webhooks.SignatureInvalid,
    ),
    summary="Note a provider's signed report that a message was opened; other reports are ignored",
)
async def receive_report(source: str, request: HttpRequest, database: Db, now: Now) -> Response:
    settings: NotificationsSettings = request.app.state.settings
    secrets = webhooks.secrets_of(settings.webhook_secrets, source)
    raw = await request.body()
    webhooks.verify(request.headers, raw, secrets)
    try:
        report = Report.model_validate_json(raw)
    except ValidationError as error:
        raise ReportUnreadable from error
    async with database.transaction() as tx:
        policy = (await current(tx, OpeningPolicy)).body
        is_new = policy.mean(report.event) and await note_opened(
            tx, report.message_id, at=report.at, now=now
        )
    return JSONResponse(Noted(is_new=is_new).model_dump())
