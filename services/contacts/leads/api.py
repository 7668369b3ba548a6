"""HTTP in: leads."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query
from fastapi import Request as HttpRequest
from pydantic import BaseModel, Field
from sqlalchemy import select
from starlette.responses import Response

from libs.shared.errors import Invalid
from libs.shared.http import (
    AmountMinor,
    Currency,
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
    Text2000,
    Text20000,
    page_of,
    problems,
    router,
)
from libs.shared.ids import new_id
from services.contacts.access import ClientNotYours, Reader, Writer, sees_all
from services.contacts.batches import answer_once, body_of, parse, read_json
from services.contacts.clients import emails, phones
from services.contacts.clients.card import Language
from services.contacts.leads.intake import Asked, Talk, take_in
from services.contacts.leads.marks import domain_of
from services.contacts.leads.models import Lead, LeadNotFound
from services.contacts.policies import phone_region

routes = router(prefix="/v1", tags=["leads"])

State = Literal["received", "assigned", "claimed", "waiting", "converted", "closed"]


class LeadUnreachable(Invalid):
    """A lead needs a phone or an e-mail."""

    code = "lead-unreachable"
    ru = "Лиду нужен телефон или e-mail."


class Consents(Request):
    """What was agreed to."""

    personal_data: Flag = False
    advertising: Flag = False


class Line(Request):
    """Something that was said."""

    by: Literal["client", "bot"]
    text: Text2000


class HandOff(Request):
    """A bot hands somebody over, with all that was said; `reason` is why it could not go on."""

    reason: Text200
    lines: Annotated[list[Line], Field(min_length=1, max_length=200)]


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
    region: Text200 | None = None
    site: Text200 | None = None  # address or domain of the site it came by
    amount_minor: AmountMinor | None = None  # what it may bring, with its currency
    currency: Currency | None = None
    complexity: Literal["typical", "complex"] | None = None
    consents: Consents = Consents()
    hand_off: HandOff | None = None


class LeadView(BaseModel):
    """A lead; `state`, `manager_id` and `epoch` as routing told them.

    Attributes:
        kind: request, handoff (by a bot), complaint.
        interaction_id: What was said before, in the client's timeline: the talk, the complaint.
    """

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
    region: str | None
    domain: str | None
    amount_minor: int | None
    currency: str | None
    complexity: str | None
    kind: str
    interaction_id: UUID | None
    utm: dict[str, Any]
    consents: dict[str, Any]
    is_returning: bool
    received_at: datetime
    state: State
    manager_id: UUID | None
    epoch: int


@routes.post(
    "/leads",
    status_code=201,
    responses={
        201: {"model": LeadView},
        **problems(LeadUnreachable, *phones.REFUSALS, emails.EmailRefused),
    },
    openapi_extra=body_of(ReceiveLead),
    summary="Take a lead in; it finds its client or becomes a new card",
)
async def receive_lead(
    request: HttpRequest, _caller: Writer, database: Db, now: Now, claim: OwnIdempotency
) -> Response:
    given = parse(ReceiveLead, await read_json(request))

    async def work(tx: Any) -> bytes:
        region = await phone_region(tx)
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
        region=given.region,
        domain=domain_of(given.site) if given.site else None,
        amount_minor=given.amount_minor,
        currency=given.currency,
        complexity=given.complexity,
        utm=dict(given.utm),
        consents=given.consents.model_dump(),
        talk=_talk(given.hand_off) if given.hand_off else None,
    )


def _talk(given: HandOff) -> Talk:
    """As a manager reads it."""
    who = {"client": "Клиент", "bot": "Бот"}
    lines = (f"{who[line.by]}: {line.text}" for line in given.lines)
    return Talk(given.reason, "\n".join(lines))


@routes.get("/leads", responses=problems(CursorInvalid), summary="Leads, the newest first")
async def list_leads(
    session: Session,
    caller: Reader,
    state: State | None = None,
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


def _lead_view(lead: Lead) -> LeadView:
    return LeadView.model_validate(lead, from_attributes=True)
