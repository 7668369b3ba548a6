"""HTTP in: leads, the forms that bring them, and the requests that brought nothing."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query
from fastapi import Request as HttpRequest
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, select
from starlette.responses import JSONResponse, Response

from libs.shared import audit, policies, webhooks
from libs.shared.errors import Conflict, Invalid, NotFound
from libs.shared.http import (
    Cursor,
    CursorInvalid,
    CursorText,
    Db,
    Flag,
    Limit,
    Now,
    OwnIdempotency,
    Page,
    Request,
    Session,
    Text50,
    Text200,
    Text20000,
    page_of,
    problems,
    router,
)
from libs.shared.ids import new_id
from services.contacts.access import ClientNotYours, Reader, Supervisor, Writer, sees_all
from services.contacts.batches import answer_once, body_of, parse, read_json
from services.contacts.clients import emails, phones
from services.contacts.clients.card import Language
from services.contacts.leads.intake import Asked, take_in
from services.contacts.leads.models import Lead, LeadNotFound, WebhookRequest
from services.contacts.leads.webhook_intake import REFUSED
from services.contacts.policies import PhonePolicy
from services.contacts.settings import ContactsSettings

routes = router(prefix="/v1", tags=["leads"])

SHOWN_CHARS = 20_000


class LeadUnreachable(Invalid):
    """A lead needs a phone or an e-mail."""

    code = "lead-unreachable"
    ru = "Лиду нужен телефон или e-mail."


class WebhookSourceUnknown(NotFound):
    """There is no webhook source with this name."""

    code = "webhook-source-unknown"
    ru = "Такого источника вебхуков нет."


class WebhookRequestNotFound(NotFound):
    """There is no webhook request with this id."""

    code = "webhook-request-not-found"
    ru = "Такого запроса нет."


class WebhookRequestNotRefused(Conflict):
    """Only a refused request can be tried again."""

    code = "webhook-request-not-refused"
    ru = "Повторить можно только отклонённый запрос."


class Consents(Request):
    """What was agreed to."""

    personal_data: Flag = False
    advertising: Flag = False


class ReceiveLead(Request):
    """Somebody asks for contact; a phone (any spelling) or an e-mail is needed."""

    name: Text200 | None = None
    phone: Text200 | None = None
    email: Text200 | None = None
    note: Text20000 | None = None
    source: Text50 = "api"
    channel: Literal["form", "phone", "messenger", "email", "visit", "api"] = "api"
    utm: Annotated[dict[Text50, Text200], Field(max_length=50)] = Field(default_factory=dict)
    product: Text200 | None = None
    city: Text200 | None = None
    language: Language | None = None
    consents: Consents = Consents()


class LeadView(BaseModel):
    """A lead; `state`, `manager_id` and `epoch` as routing told them."""

    id: UUID
    client_id: UUID
    source: str
    channel: str
    name: str | None
    phones: list[str]
    email: str | None
    note: str | None
    product: str | None
    city: str | None
    language: str | None
    utm: dict[str, Any]
    consents: dict[str, Any]
    is_returning: bool
    received_at: datetime
    state: Literal["received", "assigned", "claimed", "waiting"]
    manager_id: UUID | None
    epoch: int


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
    "/leads",
    status_code=201,
    responses={
        201: {"model": LeadView},
        **problems(
            LeadUnreachable, phones.PhoneUnreadable, phones.PhoneImpossible, emails.EmailRefused
        ),
    },
    openapi_extra=body_of(ReceiveLead),
    summary="Take a lead in; it finds its client or becomes a new card",
)
async def receive_lead(
    request: HttpRequest, _caller: Writer, database: Db, now: Now, claim: OwnIdempotency
) -> Response:
    given = parse(ReceiveLead, await read_json(request))

    async def work(tx: Any) -> bytes:
        region = (await policies.current(tx, PhonePolicy)).body.default_region
        lead_id = await take_in(tx, _asked(given, region), now=now)
        row = await tx.fetchrow("SELECT * FROM leads WHERE id = $1", lead_id)
        return LeadView.model_validate(dict(row)).model_dump_json().encode()

    return await answer_once(database, claim, work, status=201)


def _asked(given: ReceiveLead, region: str) -> Asked:
    if given.phone is None and given.email is None:
        raise LeadUnreachable(pointer="/phone")
    try:
        numbers = phones.numbers_in(given.phone, region) if given.phone else []
    except phones.PhoneRefused as error:
        raise type(error)(pointer="/phone") from None
    return Asked(
        source=given.source,
        channel=given.channel,
        name=given.name,
        phones=list(dict.fromkeys(numbers)),
        email=emails.normalise(given.email) if given.email else None,
        note=given.note,
        product=given.product,
        city=given.city,
        language=given.language,
        utm=dict(given.utm),
        consents=given.consents.model_dump(),
    )


@routes.get("/leads", responses=problems(CursorInvalid), summary="Leads, the newest first")
async def list_leads(
    session: Session,
    caller: Reader,
    state: Literal["received", "assigned", "claimed", "waiting"] | None = None,
    manager_id: UUID | None = None,
    client_id: UUID | None = None,
    source: Annotated[str | None, Query(max_length=50)] = None,
    cursor: CursorText = None,
    limit: Limit = 50,
) -> Page[LeadView]:
    if not sees_all(caller) and state != "waiting":
        manager_id = caller.manager_id or new_id()  # without an id there is no lead of one's own
    filters = {
        "state": state,
        "manager_id": manager_id,
        "client_id": client_id,
        "source": source,
    }
    query = select(Lead).where(
        *(getattr(Lead, name) == value for name, value in filters.items() if value is not None)
    )
    if last := Cursor.decode(cursor, tuple[UUID], filters):
        query = query.where(Lead.id < last[0])
    return page_of(
        (await session.scalars(query.order_by(Lead.id.desc()).limit(limit + 1))).all(),
        limit=limit,
        view=_lead_view,
        sort_values=lambda lead: [lead.id],
        filters=filters,
    )


@routes.get("/leads/{lead_id}", responses=problems(LeadNotFound, ClientNotYours))
async def show_lead(lead_id: UUID, session: Session, caller: Reader) -> LeadView:
    """One lead with what routing has told of it."""
    lead = await session.get(Lead, lead_id)
    if lead is None:
        raise LeadNotFound(lead_id=str(lead_id))
    if not sees_all(caller) and lead.manager_id not in (None, caller.manager_id):
        raise ClientNotYours
    return _lead_view(lead)


@routes.post(
    "/webhooks/forms/{source}",
    status_code=202,
    responses={
        202: {"model": Received},
        200: {"model": Received, "description": "It was received before"},
        **problems(WebhookSourceUnknown, webhooks.SignatureInvalid),
    },
    summary="Keep a signed form; a lead is made of it a moment later",
)
async def receive_form(source: str, request: HttpRequest, database: Db, now: Now) -> Response:
    settings: ContactsSettings = request.app.state.settings
    secrets = settings.webhook_secrets.get(source)
    if secrets is None:
        raise WebhookSourceUnknown
    raw = await request.body()
    shown = [secret.get_secret_value() for secret in secrets]
    identity = webhooks.verify(request.headers, raw, shown)
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


def _lead_view(lead: Lead) -> LeadView:
    return LeadView.model_validate(lead, from_attributes=True)
