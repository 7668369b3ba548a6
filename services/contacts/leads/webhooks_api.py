"""HTTP in: signed forms, and what became of each."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Request as HttpRequest
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, select
from starlette.responses import JSONResponse, Response

from libs.shared import audit, webhooks
from libs.shared.errors import Conflict, NotFound
from libs.shared.http import (
    Cursor,
    CursorInvalid,
    CursorText,
    Db,
    Limit,
    Now,
    Page,
    Session,
    page_of,
    problems,
    router,
)
from services.contacts.access import Supervisor
from services.contacts.leads.models import WebhookRequest
from services.contacts.leads.webhook_intake import REFUSED
from services.contacts.settings import ContactsSettings

routes = router(prefix="/v1", tags=["leads"])

SHOWN_CHARS = 20_000


class WebhookRequestNotFound(NotFound):
    """There is no webhook request with this id."""

    code = "webhook-request-not-found"
    ru = "Такого запроса нет."


class WebhookRequestNotRefused(Conflict):
    """Only a refused request can be tried again."""

    code = "webhook-request-not-refused"
    ru = "Повторить можно только отклонённый запрос."


class Received(BaseModel):
    """The request is kept; what becomes of it shows under /v1/webhooks/requests."""

    received: bool = True


class WebhookRequestView(BaseModel):
    """A request as it came, and what became of it: `lead: <id>` or `refused: <why>`."""

    id: int
    source: str
    external_id: str
    received_at: datetime
    state: Literal["waiting", "done", "refused"]
    outcome: str | None
    attempts: int
    body: str


@routes.post(
    "/webhooks/forms/{source}",
    status_code=202,
    responses={
        202: {"model": Received},
        200: {"model": Received, "description": "It was received before"},
        **problems(webhooks.WebhookSourceUnknown, webhooks.SignatureInvalid),
    },
    summary="Keep a signed form; a lead is made of it a moment later",
)
async def receive_form(source: str, request: HttpRequest, database: Db, now: Now) -> Response:
    settings: ContactsSettings = request.app.state.settings
    secrets = webhooks.secrets_of(settings.webhook_secrets, source)
    raw = await request.body()
    identity = webhooks.verify(request.headers, raw, secrets)
    async with database.transaction() as tx:
        new = await webhooks.store(
            tx,
            source=source,
            external_id=identity,
            headers=request.headers,
            raw=raw,
            received_at=now,
        )
    return JSONResponse(Received().model_dump(), 202 if new else 200)


@routes.get(
    "/webhooks/requests",
    responses=problems(CursorInvalid),
    summary="Webhook requests and what became of them, the newest first",
)
async def list_webhook_requests(
    session: Session,
    _caller: Supervisor,
    state: Literal["waiting", "done", "refused"] | None = None,
    cursor: CursorText = None,
    limit: Limit = 50,
) -> Page[WebhookRequestView]:
    filters = {"state": state}
    query = select(WebhookRequest).where(*_in_state(state))
    if last := Cursor.decode(cursor, tuple[int], filters):
        query = query.where(WebhookRequest.id < last[0])
    query = query.order_by(WebhookRequest.id.desc()).limit(limit + 1)
    return page_of(
        (await session.scalars(query)).all(),
        limit=limit,
        view=_request_view,
        sort_values=lambda row: [row.id],
        filters=filters,
    )


@routes.post(
    "/webhooks/requests/{request_id}/replay",
    status_code=202,
    responses=problems(WebhookRequestNotFound, WebhookRequestNotRefused),
    summary="Try a refused request again",
)
async def replay_webhook_request(
    request_id: Annotated[int, Field(ge=1, le=2**63 - 1)],
    session: Session,
    _caller: Supervisor,
    now: Now,
) -> WebhookRequestView:
    query = select(WebhookRequest).where(WebhookRequest.id == request_id).with_for_update()
    row = await session.scalar(query)
    if row is None:
        raise WebhookRequestNotFound
    if _state(row) != "refused":
        raise WebhookRequestNotRefused(state=_state(row))
    row.outcome, row.due_at = None, now
    await session.flush()
    await audit.record(
        session,
        action="webhook_request.replayed",
        subject_type="webhook_request",
        subject_id=str(request_id),
        at=now,
    )
    return _request_view(row)


def _in_state(state: str | None) -> list[ColumnElement[bool]]:
    outcome = WebhookRequest.outcome
    if state is None:
        return []
    if state == "waiting":
        return [outcome.is_(None)]
    refused = outcome.startswith(REFUSED)
    return [outcome.is_not(None), refused if state == "refused" else ~refused]


def _state(row: WebhookRequest) -> Literal["waiting", "done", "refused"]:
    if row.outcome is None:
        return "waiting"
    return "refused" if row.outcome.startswith(REFUSED) else "done"


def _request_view(row: WebhookRequest) -> WebhookRequestView:
    return WebhookRequestView(
        id=row.id,
        source=row.source,
        external_id=row.external_id,
        received_at=row.received_at,
        state=_state(row),
        outcome=row.outcome,
        attempts=row.attempts,
        body=row.body.decode(errors="replace")[:SHOWN_CHARS],
    )
