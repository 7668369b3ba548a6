"""Reports, what if, and the live floor."""

import asyncio
import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
import uvicorn

from libs.shared.ids import new_id
from services.routing import handing_over
from services.routing.choosing.rule_set import Goal, Rule, RuleSet, Strategy
from services.routing.policy import MutedPeriod, MutingPolicy
from services.routing.reports.figures import REPORTS
from services.routing.rules.versions import draft
from tests.apps import App, problem
from tests.conftest import free_port
from tests.routing.conftest import NOON, WINDOW, Routing

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
TIME = f"since={NOON.isoformat().replace('+', '%2B')}&until=2026-03-10T00:00:00Z"


async def rows(api: App, name: str) -> list[dict[str, Any]]:
    answer = await api.call("GET", f"/v1/reports/{name}?{TIME}", role="analyst")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["rows"]
    return found


async def claims(routing: Routing, lead: UUID, by: UUID, epoch: int, at: datetime) -> None:
    async with routing.database.session() as session:
        await handing_over.claim(session, lead, by=by, epoch=epoch, now=at)


async def a_day(routing: Routing) -> tuple[UUID, UUID]:
    """Ann takes hers in 10 s and wins one of two; Ben lets his lapse and Ann takes it."""
    ann, ben = sorted([await routing.manager(), await routing.manager()])
    first, second, third = await routing.comes(3)
    for lead in (first, third):
        await claims(routing, lead, ann, 1, NOON + 10 * SECOND)
    await routing.sweeps(NOON + WINDOW)
    await claims(routing, second, ann, 2, NOON + WINDOW + 30 * SECOND)
    async with routing.database.session() as session:
        later = NOON + timedelta(hours=1)
        await handing_over.convert(session, first, by=ann, epoch=1, deal_id=None, now=later)
        await handing_over.close(session, third, by=ann, epoch=1, reason="lost", now=later)
        await handing_over.close(session, second, by=ann, epoch=2, reason="spam", now=later)
    return ann, ben


async def test_times_lapses_conversion_and_fairness(api: App, routing: Routing) -> None:
    ann, ben = await a_day(routing)

    (response,) = await rows(api, "response-times")
    assert (response["manager_id"], response["leads"]) == (str(ann), 3)
    assert (response["p50_s"], response["max_s"]) == (10.0, 930.0)
    (claim,) = await rows(api, "claim-times")
    assert (claim["p50_s"], claim["max_s"]) == (10.0, 30.0)
    lapses = {row["manager_id"]: row for row in await rows(api, "lapses-by-manager")}
    assert (lapses[str(ben)]["offers"], lapses[str(ben)]["lapsed"]) == (1, 1)
    assert lapses[str(ann)]["lapsed_percent"] == 0.0
    assert [row["rule"] for row in await rows(api, "lapses-by-rule")] == [None]
    assert await rows(api, "lapses-by-hour") == [
        {"hour": 12, "offers": 4, "lapsed": 1, "lapsed_percent": 25.0}
    ]
    assert [row["channel"] for row in await rows(api, "lapses-by-channel")] == ["form"]
    assert await rows(api, "conversion") == [
        {
            "week": "2026-03-02",
            "manager_id": str(ann),
            "kind": "cold",
            "ended": 2,  # spam is nobody's fault
            "converted": 1,
            "converted_percent": 50.0,
        }
    ]
    fair = {row["manager_id"]: row for row in await rows(api, "fairness")}
    assert (fair[str(ann)]["share_percent"], fair[str(ann)]["fair_percent"]) == (75.0, 50.0)


@pytest.mark.parametrize("name", REPORTS)
async def test_every_report_is_there_as_csv(api: App, routing: Routing, name: str) -> None:
    await a_day(routing)
    answer = await api.call("GET", f"/v1/reports/{name}?{TIME}&format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    table = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(table) == len(await rows(api, name))
    assert tuple(table[0]) == REPORTS[name].columns


async def test_reports_refuse_what_makes_no_sense(api: App) -> None:
    assert problem(await api.call("GET", "/v1/reports/none")) == (404, "report-unknown")
    long = await api.call("GET", "/v1/reports/fairness?since=2020-01-01T00:00:00Z")
    assert problem(long) == (422, "time-impossible")
    seller = await api.call("GET", "/v1/reports/fairness", role="manager")
    assert problem(seller) == (403, "role-missing")


async def test_a_draft_is_played_over_the_last_days(api: App, routing: Routing) -> None:
    now = datetime.now(UTC)
    ann, ben = sorted([await routing.manager(capacity=50), await routing.manager(capacity=50)])
    begins = now - timedelta(hours=3)
    await routing.database.pool.execute("UPDATE shifts SET starts_at = $1", now - timedelta(days=2))
    leads = await routing.comes(10, at=begins)
    for lead in leads:
        row = await routing.lead(lead)
        if row["manager_id"] == ann:
            await claims(routing, lead, ann, 1, begins + 20 * SECOND)
    await routing.sweeps(begins + WINDOW)  # Ben lets all of his lapse, Ann gets them
    await routing.team("ann", ann)
    async with routing.database.session() as session:
        rule_set = RuleSet(rules=(Rule(name="всё Анне", team="ann"),))
        row_ = await draft(session, rule_set, note=None, by="test", now=now)

    answer = await api.call("POST", f"/v1/rule-sets/{row_.version}/what-if", {"days": 1})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["leads"], told["version"], told["in_force"]) == (10, 2, 1)
    anns, bens = told["managers"][str(ann)], told["managers"][str(ben)]
    assert (anns["leads"], anns["missed"], anns["mean_wait_s"]) == (10, 0, 20.0)
    assert (anns["leads_change"], bens["leads_change"]) == (0, 0)  # Ben took none either way
    assert (bens["missed"], bens["missed_change"]) == (0, -5)
    assert (bens["unanswered"], bens["unanswered_change"]) == (0, -5)  # three minutes were over
    assert anns["mean_wait_s_change"] == -450.0  # half of them had waited for Ben's window
    assert told["teams"]["ann"]["leads_change"] == 10
    assert problem(await api.call("POST", "/v1/rule-sets/99/what-if", {})) == (
        404,
        "rule-set-not-found",
    )
    active = (await api.call("GET", "/v1/rule-sets/active")).json()
    assert active["version"] == 1  # playing changes nothing


async def test_what_if_keeps_every_lead(api: App, routing: Routing) -> None:
    now = datetime.now(UTC)
    await routing.manager(capacity=3)
    await routing.manager()
    await routing.database.pool.execute("UPDATE shifts SET starts_at = $1", now - timedelta(days=2))
    for hours in range(1, 6):
        await routing.comes(4, at=now - timedelta(hours=hours))
    async with routing.database.session() as session:
        made = await draft(
            session,
            RuleSet(otherwise=Goal(strategy=Strategy(kind="load"))),
            note=None,
            by="test",
            now=now,
        )
    answer = await api.call("POST", f"/v1/rule-sets/{made.version}/what-if", {"days": 2})
    told = answer.json()
    taken = sum(line["leads"] for line in told["managers"].values())
    assert taken + told["left"] == told["leads"] == 20


async def test_what_if_knows_pauses_limits_and_muted_segments(api: App, routing: Routing) -> None:
    now = datetime.now(UTC)
    ann, ben = sorted([await routing.manager(capacity=50), await routing.manager(capacity=50)])
    pool = routing.database.pool
    await pool.execute("UPDATE shifts SET starts_at = $1", now - timedelta(days=2))
    for lead in await routing.comes(8, at=now - timedelta(hours=3)):
        row = await routing.lead(lead)
        at = now - timedelta(hours=3) + 20 * SECOND
        await claims(routing, lead, row["manager_id"], 1, at)
    async with routing.database.session() as session:
        made = await draft(session, RuleSet(), note=None, by="test", now=now)

    async def played() -> dict[UUID, int]:
        answer = await api.call("POST", f"/v1/rule-sets/{made.version}/what-if", {"days": 1})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert sum(line["leads"] for line in told["managers"].values()) + told["left"] == 8
        return {UUID(name): line["leads"] for name, line in told["managers"].items()}

    assert await played() == {ann: 4, ben: 4}
    await pool.execute("UPDATE managers SET hourly_limit = 3 WHERE manager_id = $1", ann)
    assert await played() == {ann: 3, ben: 5}
    pausing = "UPDATE managers SET paused_at = $2 WHERE manager_id = $1"
    await pool.execute(pausing, ben, now - timedelta(hours=4))
    answer = await api.call("POST", f"/v1/managers/{ben}/resume", {})
    assert answer.status_code == 200, answer.text
    assert (await played()).get(ben, 0) == 0  # it is over by now, but it was then
    assert await pool.fetchval("DELETE FROM pauses RETURNING starts_at") == now - timedelta(hours=4)
    assert await played() == {ann: 3, ben: 5}
    await pool.execute(pausing, ben, now - timedelta(hours=4))
    assert (await played()).get(ben, 0) == 0  # it lasts
    muted = MutedPeriod(segments=("none",), begins_at=now - DAY, ends_at=now + DAY)
    await routing.policy(MutingPolicy(periods=(muted,)))
    assert await played() == {}


async def test_the_live_floor_tells_of_every_change(api: App, routing: Routing) -> None:
    ann = await routing.manager(name="Анна")
    await routing.comes(2)
    port = free_port()
    config = uvicorn.Config(api.app, port=port, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(20):
            while not server.started:
                await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            bearer = api.issuer.bearer("supervisor")["Authorization"]
            asked = f"GET /v1/floor/live HTTP/1.1\r\nHost: baza\r\nAuthorization: {bearer}\r\n\r\n"
            writer.write(asked.encode())
            first = await picture(reader)
            assert first["counts"] == {"waiting": 0, "queued": 0, "muted": 0, "offered": 2}
            assert [(m["name"], m["open_leads"]) for m in first["managers"]] == [("Анна", 2)]
            assert {clock["manager_id"] for clock in first["clocks"]} == {str(ann)}
            await routing.comes(1)
            while (await picture(reader))["counts"]["offered"] != 3:
                """It was waiting for a moment."""
            writer.close()
    finally:
        server.should_exit = True
        await task


async def picture(reader: asyncio.StreamReader) -> dict[str, Any]:
    while True:
        line = await reader.readline()
        if line.startswith(b"HTTP/1.1") and b"200" not in line:
            raise AssertionError(line)
        if line.startswith(b"data: "):
            found: dict[str, Any] = orjson.loads(line[6:])
            return found


async def test_the_live_floor_is_for_supervisors(api: App) -> None:
    refused = await api.call("GET", "/v1/floor/live", role="manager", manager_id=new_id())
    assert problem(refused) == (403, "role-missing")
