"""HTTP in: explanations, replays, reports, what if, and the live floor."""

import csv
import io
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from fastapi import Depends, Query
from fastapi import Request as HttpRequest
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared.auth import Principal, Role, require
from libs.shared.clock import Clock
from libs.shared.database import dumps
from libs.shared.errors import Invalid, NotFound
from libs.shared.field_types import Instant
from libs.shared.http import Db, Now, Request, Session, problems, router
from libs.shared.live import EventSourceResponse, ServerSentEvent, views
from libs.shared.policies import current
from services.routing.choosing.rule_set import Prepared, RuleSet
from services.routing.handing_over import LeadNotFound, find_lead
from services.routing.policy import ClaimPolicy, MutingPolicy
from services.routing.reports.comparing import compare, line_of
from services.routing.reports.explaining import explain, replay
from services.routing.reports.figures import REPORTS, rows_of
from services.routing.reports.live_floor import FloorPicture, picture
from services.routing.reports.what_if import Tally
from services.routing.rules.versions import RuleSetNotFound, active, find

routes = router(prefix="/v1", tags=["reports"])

Anybody = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPERVISOR, Role.ANALYST))]
Reader = Annotated[Principal, Depends(require(Role.SUPERVISOR, Role.ANALYST))]

MOST_DAYS = 92
Key = TypeVar("Key", UUID, str)


class ReportUnknown(NotFound):
    """There is no report with this name."""

    code = "report-unknown"
    ru = "Отчёта с таким именем нет."


class TimeImpossible(Invalid):
    """A time ends after it begins, and is at most 92 days long."""

    code = "time-impossible"
    ru = "Период должен кончаться позже начала и быть не длиннее 92 дней."


class ReplayDecisions(Request):
    """Which decisions to make again."""

    since: Instant
    until: Instant


class PlayWhatIf(Request):
    """Over how many of the last days a draft is played."""

    days: Annotated[int, Field(strict=True, ge=1, le=MOST_DAYS)] = 7


class ConsideredView(BaseModel):
    """A manager who was looked at; `verdict` is null for who got the lead."""

    manager_id: UUID
    team: str
    verdict: str | None
    words: str
    open_leads: int
    open_touches: int
    stood: int | None


class ExplanationView(BaseModel):
    """One decision about a lead, in figures and in words (Russian)."""

    at: datetime
    rule_version: int
    rule: str | None
    conditions: list[str]
    manager_id: UUID | None
    why: str
    team: str | None
    strategy: str | None
    round: int
    epoch: int
    load: tuple[int, int] | None
    stood: tuple[int, int] | None
    turn: int | None
    share_percent: float | None
    muted_until: datetime | None
    candidates: list[ConsideredView]
    words: str


class ReplayView(BaseModel):
    """How many sittings were decided again, and which came out otherwise: none should."""

    checked: int
    skipped: int
    differing: list[UUID]


class ReportView(BaseModel):
    """A report; the members of `rows` are `columns`."""

    name: str
    title: str
    columns: list[str]
    rows: list[dict[str, Any]]


class WhatIfLine(BaseModel):
    """The draft's figure and its change from the rules in force."""

    leads: int
    leads_change: int
    most_open: int
    most_open_change: int
    mean_wait_s: float
    mean_wait_s_change: float
    missed: int
    missed_change: int
    unanswered: int
    unanswered_change: int


class WhatIfView(BaseModel):
    """A draft beside the rules in force over the same days; `left` is what nobody took."""

    version: int
    in_force: int
    since: datetime
    until: datetime
    leads: int
    is_cut: bool
    left: int
    left_change: int
    managers: dict[UUID, WhatIfLine]
    teams: dict[str, WhatIfLine]


@routes.get(
    "/leads/{lead_id}/explanation",
    response_model=list[ExplanationView],
    responses=problems(LeadNotFound),
    summary="Why him, why not the others: every decision about a lead",
)
async def explain_lead(
    lead_id: UUID, session: Session, _user: Anybody, database: Db
) -> list[dict[str, Any]]:
    await find_lead(session, lead_id)
    async with database.pool.acquire() as connection:
        return [each.record() for each in await explain(connection, lead_id)]


@routes.post(
    "/decisions/replay",
    response_model=ReplayView,
    responses=problems(TimeImpossible),
    summary="Make the decisions of a time again from their records and compare the bytes",
)
async def replay_decisions(wish: ReplayDecisions, _user: Reader, database: Db) -> ReplayView:
    _demand_time(wish.since, wish.until)
    async with database.pool.acquire() as connection:
        found = await replay(connection, wish.since, wish.until)
    return ReplayView(checked=found.checked, skipped=found.skipped, differing=found.differing)


@routes.get(
    "/reports/{name}",
    response_model=ReportView,
    responses={
        200: {"content": {"text/csv": {}}},
        **problems(ReportUnknown, TimeImpossible),
    },
    summary="Response and claim times, lapses, conversion, fairness; JSON or CSV",
)
async def show_report(
    name: str,
    _user: Reader,
    database: Db,
    now: Now,
    since: Instant | None = None,
    until: Instant | None = None,
    format: Annotated[Literal["json", "csv"], Query()] = "json",
) -> Any:
    report = REPORTS.get(name)
    if report is None:
        raise ReportUnknown(known=sorted(REPORTS))
    until = until or now
    since = since or until - timedelta(days=7)
    _demand_time(since, until)
    async with database.pool.acquire() as connection:
        rows = await rows_of(connection, report, since, until)
    if format == "csv":
        return Response(_csv(report.columns, rows), media_type="text/csv; charset=utf-8")
    return ReportView(name=name, title=report.title, columns=list(report.columns), rows=list(rows))


@routes.post(
    "/rule-sets/{version}/what-if",
    response_model=WhatIfView,
    responses=problems(RuleSetNotFound),
    summary="Play a draft over the leads of the last days, beside the rules in force",
)
async def play_what_if(
    version: int, wish: PlayWhatIf, session: Session, _user: Reader, database: Db, now: Now
) -> WhatIfView:
    draft, in_force = await find(session, version), await active(session)
    claims = (await current(session, ClaimPolicy)).body
    muting = (await current(session, MutingPolicy)).body
    since = now - timedelta(days=wish.days)
    async with database.pool.acquire() as connection:
        found = await compare(
            connection,
            draft=Prepared.of(version, RuleSet.model_validate(draft.body)),
            in_force=Prepared.of(in_force.version, RuleSet.model_validate(in_force.body)),
            claims=claims,
            muting=muting,
            since=since,
            until=now,
        )
    before, after = found.in_force, found.draft
    return WhatIfView(
        version=version,
        in_force=in_force.version,
        since=since,
        until=now,
        leads=found.leads,
        is_cut=found.is_cut,
        left=after.left,
        left_change=after.left - before.left,
        managers=_lines(before.managers, after.managers),
        teams=_lines(before.teams, after.teams),
    )


@routes.get(
    "/floor/live",
    response_class=EventSourceResponse,
    summary="What waits, who is there, which clocks run out: server-sent events at every change",
)
async def watch_floor(request: HttpRequest, _user: Reader) -> AsyncIterator[ServerSentEvent]:
    async def look(session: AsyncSession, _clock: Clock) -> FloorPicture:
        return await picture(session)

    async for event in views(request, look, event="floor"):
        yield event


def _lines(before: dict[Key, Tally], after: dict[Key, Tally]) -> dict[Key, WhatIfLine]:
    nothing = Tally()
    return {
        key: WhatIfLine(**line_of(before.get(key, nothing), after.get(key, nothing)))
        for key in sorted(before.keys() | after.keys())
    }


def _demand_time(since: datetime, until: datetime) -> None:
    if not since < until <= since + timedelta(days=MOST_DAYS):
        raise TimeImpossible(pointer="/until")


def _csv(columns: tuple[str, ...], rows: Any) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if row[name] is None else _cell(row[name]) for name in columns])
    return out.getvalue()


def _cell(value: Any) -> str:
    """Text that a spreadsheet takes for a formula is told that it is none."""
    text = value if isinstance(value, str) else dumps(value).strip('"')
    return "'" + text if isinstance(value, str) and text[:1] in "=+-@\t\r" else text
