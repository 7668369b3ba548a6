"""HTTP in: templates, their versions in force, and what a message would look like."""

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from libs.shared.auth import Principal, Role, require
from libs.shared.errors import PreconditionFailed
from libs.shared.http import IfMatch, Now, Request, Session, problems, router, set_etag
from services.notifications.default_templates import TemplateKey, Text
from services.notifications.reminder_policy import Channel, Language, Slug
from services.notifications.rendering import TemplateRefused, check, render, sample_of, variables_of
from services.notifications.templates import (
    TemplateInForce,
    TemplateNotFound,
    all_in_force,
    find,
    write,
)

routes = router(prefix="/v1/templates", tags=["templates"])

Reader = Annotated[
    Principal,
    Depends(require(Role.MANAGER, Role.SUPERVISOR, Role.ANALYST, Role.MARKETER, Role.SUPPORT)),
]
Writer = Annotated[Principal, Depends(require(Role.SUPERVISOR, Role.MARKETER))]

Subject = Annotated[str, Field(max_length=1000)]
Body = Annotated[str, Field(min_length=1, max_length=20_000)]


class TemplateView(BaseModel):
    """A template in force. Version 1 is what Baza ships.

    Attributes:
        variables: What may stand between `{{` and `}}`, with what it means.
    """

    code: str
    channel: Channel
    language: str
    version: int
    subject: str
    body: str
    changed_at: datetime | None
    changed_by: str | None
    variables: dict[str, str]


class WriteTemplate(Request):
    """A template's next version, whole. The second channel has no subject."""

    subject: Subject = ""
    body: Body


class Values(Request):
    """Values to show a template with; what is left out is taken from an example.

    The first five are of templates for clients, the others of those for staff (`staff_...`).
    """

    model_config = ConfigDict(extra="forbid")

    client_name: Subject | None = None
    topic: Subject | None = None
    kind: Slug | None = None
    starts_at: Subject | None = None
    reschedule_link: Subject | None = None
    recipient_name: Subject | None = None
    count: Subject | None = None
    clients: Subject | None = None
    managers: Subject | None = None
    since: Subject | None = None


class PreviewTemplate(Request):
    """What to show: the template in force, or the text given here instead."""

    channel: Channel = "email"
    language: Language = "ru"
    subject: Subject | None = None
    body: Body | None = None
    values: Values = Field(default_factory=Values)


class Preview(BaseModel):
    """A message as it would be got."""

    subject: str
    body: str


class TemplatePath(BaseModel):
    """Which template is meant."""

    code: Annotated[Slug, Path()]
    channel: Annotated[Channel, Path()]
    language: Annotated[Language, Path()]

    @property
    def key(self) -> TemplateKey:
        """What it is known by."""
        return TemplateKey(self.code, self.channel, self.language)


Which = Annotated[TemplatePath, Depends()]


@routes.get("", response_model=list[TemplateView], summary="Every template in force")
async def list_templates(session: Session, _user: Reader) -> list[TemplateView]:
    return [_view(found) for found in await all_in_force(session)]


@routes.get(
    "/{code}/{channel}/{language}",
    response_model=TemplateView,
    responses=problems(TemplateNotFound),
    summary="One template; its ETag is what a change must name",
)
async def show_template(
    which: Which, session: Session, _user: Reader, response: Response
) -> TemplateView:
    found = await find(session, which.key)
    set_etag(response, found.version)
    return _view(found)


@routes.put(
    "/{code}/{channel}/{language}",
    response_model=TemplateView,
    responses=problems(TemplateRefused, PreconditionFailed),
    summary="Put a new version in force; `If-Match: *` writes a new template",
)
async def write_template(
    which: Which,
    wanted: WriteTemplate,
    expected: IfMatch,
    session: Session,
    user: Writer,
    now: Now,
    response: Response,
) -> TemplateView:
    made = await write(
        session,
        which.key,
        Text(wanted.subject, wanted.body),
        expected=expected,
        by=user.subject,
        at=now,
    )
    set_etag(response, made.version)
    return _view(made)


@routes.post(
    "/{code}/preview",
    response_model=Preview,
    responses=problems(TemplateNotFound, TemplateRefused),
    summary="Show what somebody would get; nothing is kept or sent",
)
async def preview_template(
    code: Annotated[Slug, Path()], wish: PreviewTemplate, session: Session, _user: Reader
) -> Preview:
    if wish.body is None:
        text = (await find(session, TemplateKey(code, wish.channel, wish.language))).text
    else:
        text = Text(wish.subject or "", wish.body)
    check(text, channel=wish.channel, code=code)
    values = sample_of(code) | wish.values.model_dump(exclude_unset=True)
    made = render(text, values, channel=wish.channel)
    return Preview(subject=made.subject, body=made.body)


def _view(found: TemplateInForce) -> TemplateView:
    return TemplateView(
        code=found.key.code,
        channel=found.key.channel,
        language=found.key.language,
        version=found.version,
        subject=found.text.subject,
        body=found.text.body,
        changed_at=found.changed_at,
        changed_by=found.changed_by,
        variables=variables_of(found.key.code),
    )
