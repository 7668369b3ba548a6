"""Whom to call, the day of a manager, clients taken in hand by one manager only."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import uvicorn
from pydantic import TypeAdapter

from libs.shared.events import Promised
from libs.shared.ids import new_id
from services.scoring.main import build
from services.scoring.settings import ScoringSettings
from services.scoring.touches.budget import room_for, slots_on
from services.scoring.touches.leasing_api import InHand
from services.scoring.touches.policy import QueuePolicy
from services.scoring.touches.queue import QueueEntry
from tests.apps import App, problem, running
from tests.scoring.conftest import Scoring, closed
from tests.scoring.test_touch_planning import MOSCOW, card, spoke


def now() -> datetime:
    return datetime.now(UTC)


async def overdue(
    scoring: Scoring, count: int, *, owner: UUID | None = None, money: int = 100_000
) -> list[UUID]:
    """Clients whose touch is overdue, the most valuable first."""
    clients = [new_id() for _ in range(count)]
    at = now()
    await scoring.hears(
        *(closed(c, ago=300, money=money - n, at=at) for n, c in enumerate(clients))
    )
    if owner is not None:
        await scoring.hears(*(card(client, owner) for client in clients))
    await scoring.turns_touches(at)
    return clients


async def take_next(api: App, manager: UUID, **wish: Any) -> dict[str, Any]:
    answer = await api.call("POST", "/v1/queue/next", wish, role="manager", manager_id=manager)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def change_policy(api: App, **changes: Any) -> None:
    read = await api.call("GET", "/v1/policies/queue")
    body = {"body": read.json()["body"] | changes}
    written = await api.call(
        "PUT", "/v1/policies/queue", body, headers={"If-Match": read.headers["ETag"]}
    )
    assert written.status_code == 200, written.text


async def test_the_queue_begins_with_the_most_urgent_segment_and_says_why(
    api: App, scoring: Scoring
) -> None:
    at = now()
    lost, cant_lose, bought_today = new_id(), new_id(), new_id()
    until = date(2030, 4, 15)
    await scoring.hears(
        closed(lost, ago=360, money=100, at=at),
        *(closed(cant_lose, ago=ago, money=4_000_000, at=at) for ago in (200, 210, 220, 230)),
        closed(bought_today, money=900, at=at),
    )
    await scoring.hears(
        spoke(
            cant_lose,
            at - timedelta(days=90),
            promises=[Promised(text="прислать КП", due_on=until)],
        )
    )
    await scoring.turns_touches(at)

    queue = (await api.call("GET", "/v1/queue", role="analyst")).json()

    assert [(entry["place"], entry["client_id"]) for entry in queue] == [
        (1, str(cant_lose)),
        (2, str(lost)),
    ]  # whose day has not come is not in it
    first = queue[0]
    assert first["segment"] == "cant_lose_them"
    assert (first["promised"], first["promised_until"]) == ("прислать КП", "2030-04-15")
    assert first["hints"] == ["urgent"]
    for word in ("последняя покупка 200 дн. назад", "просрочено", "прислать КП", "срочно"):
        assert word in first["reason"]


async def test_a_touch_takes_a_client_out_of_the_queue(api: App, scoring: Scoring) -> None:
    first, second = await overdue(scoring, 2)
    await scoring.hears(spoke(first, now()))
    queue = (await api.call("GET", "/v1/queue")).json()
    assert [entry["client_id"] for entry in queue] == [str(second)]


async def test_a_manager_sees_their_own_clients_and_those_of_nobody(
    api: App, scoring: Scoring
) -> None:
    me, other = new_id(), new_id()
    (mine,) = await overdue(scoring, 1, owner=me, money=500)
    (others,) = await overdue(scoring, 1, owner=other, money=700)
    (nobodys,) = await overdue(scoring, 1, money=600)

    async def queue(role: str, **whose: Any) -> list[str]:
        path = "/v1/queue" + (f"?manager_id={whose['asks']}" if "asks" in whose else "")
        answer = await api.call("GET", path, role=role, manager_id=whose.get("token"))
        return [entry["client_id"] for entry in answer.json()]

    assert await queue("manager", token=me) == [str(nobodys), str(mine)]
    assert await queue("supervisor") == [str(others), str(nobodys), str(mine)]
    assert await queue("supervisor", asks=other) == [str(others), str(nobodys)]
    refused = await api.call("GET", f"/v1/queue?manager_id={other}", role="manager", manager_id=me)
    assert problem(refused) == (403, "queue-not-yours")
    unnamed = await api.call("GET", "/v1/day", role="manager")
    assert problem(unnamed) == (403, "manager-unnamed")

    await change_policy(api, common_queue=False)
    assert await queue("manager", token=me) == [str(mine)]


async def test_the_day_shows_queue_budget_and_what_is_overdue(api: App, scoring: Scoring) -> None:
    me = new_id()
    clients = await overdue(scoring, 3, owner=me)
    await change_policy(api, minutes_a_touch=30)
    day = (await api.call("GET", "/v1/day", role="manager", manager_id=me)).json()

    assert (day["due"], day["overdue"]) == (0, 3)
    assert [entry["client_id"] for entry in day["first"]] == [str(client) for client in clients]
    (line,) = day["waiting"]
    assert (line["overdue"], line["overdue_minor"]) == (3, 299_997)
    workday = now().astimezone(MOSCOW).weekday() < 5
    assert day["budget"]["done"] == 0
    assert len(day["budget"]["slots"]) == (1 if workday else 0)


async def test_the_summary_counts_the_whole_base(api: App, scoring: Scoring) -> None:
    await overdue(scoring, 2)
    await scoring.hears(closed(new_id(), at=now()))
    before = (await api.call("GET", "/v1/queue/summary", role="analyst")).json()
    await scoring.turns_touches(now())
    after = (await api.call("GET", "/v1/queue/summary", role="analyst")).json()

    assert (before["unsettled"], before["planned"], before["overdue"]) == (1, 0, 2)
    assert (after["unsettled"], after["planned"], after["overdue"]) == (0, 1, 2)
    assert sum(line["overdue"] for line in after["waiting"]) == 2
    refused = await api.call("GET", "/v1/queue/summary", role="manager", manager_id=new_id())
    assert refused.status_code == 403


async def test_a_muted_segment_is_not_called_in_its_season(api: App, scoring: Scoring) -> None:
    await overdue(scoring, 2)
    (entry, _) = (await api.call("GET", "/v1/queue")).json()
    today = now().astimezone(MOSCOW).date()

    def season(first: int, last: int) -> dict[str, Any]:
        days = (today + timedelta(days=n) for n in (first, last))
        return dict(zip(("first_day", "last_day"), (day.isoformat() for day in days), strict=True))

    async def called() -> int:
        return len((await api.call("GET", "/v1/queue")).json())

    await change_policy(api, muted=[{"segments": [entry["segment"]], **season(-1, 0)}])
    assert await called() == 0
    assert (await take_next(api, new_id()))["client"] is None
    await change_policy(api, muted=[{"segments": [entry["segment"]], **season(-9, -1)}])
    assert await called() == 2
    assert (await take_next(api, new_id()))["client"] is not None


async def test_a_budget_can_end_the_day(api: App, scoring: Scoring) -> None:
    me = new_id()
    first, *_ = await overdue(scoring, 2)
    await scoring.hears(spoke(first, now(), by=me))
    await change_policy(api, minutes_a_touch=480, ends_with_the_budget=True)
    answer = await api.call("POST", "/v1/queue/next", {}, role="manager", manager_id=me)
    assert problem(answer) == (409, "budget-used-up")
    assert await leased(scoring) == 0


async def leased(scoring: Scoring) -> int:
    """Clients whom somebody was given."""
    count: int = await scoring.database.pool.fetchval(
        "SELECT count(*) FROM touch_plans WHERE lease_no > 0"
    )
    return count


async def test_what_another_process_changed_holds_from_the_next_request_on(
    url: str, api: App, scoring: Scoring
) -> None:
    clients = await overdue(scoring, 20)
    me, managers = new_id(), [new_id() for _ in range(20)]
    async with running(build, ScoringSettings, url) as other:
        before = await take_next(other, me)
        assert before["client"]["client_id"] == str(clients[0])

        await change_policy(api, common_queue=False)
        assert (await take_next(other, new_id()))["client"] is None
        assert await leased(scoring) == 1  # nobody was given under the policy before
        assert (await take_next(other, me))["client"] == before["client"]  # who is in hand, stays

        await change_policy(api, common_queue=True)
        given = await asyncio.gather(*(take_next(other, manager) for manager in managers))
        got = [answer["client"]["client_id"] for answer in given if answer["client"]]
        assert sorted(got) == sorted(str(client) for client in clients[1:])

        await activate_with_labels(api, "Новое имя")
        for answer in (await other.call("GET", "/v1/queue")).json():
            assert answer["segment_label"] == "Новое имя"
        assert (await take_next(other, me))["client"]["segment_label"] == "Новое имя"


async def activate_with_labels(api: App, label: str) -> None:
    """Rules like those in force whose segments all have another name."""
    (rules,) = (await api.call("GET", "/v1/rule-sets", role="analyst")).json()["items"]
    rule_set = rules["rule_set"]
    for segment in (*rule_set["segments"], rule_set["otherwise"]):
        segment["label"] = label
    drafted = await api.call("POST", "/v1/rule-sets", rule_set, role="analyst")
    path = f"/v1/rule-sets/{drafted.json()['version']}/activate?despite_gaps=true"
    activated = await api.call("POST", path, {}, role="analyst")
    assert activated.status_code == 200, activated.text


async def test_answers_are_written_as_their_models_would_be(api: App, scoring: Scoring) -> None:
    at, me = now(), new_id()
    await overdue(scoring, 2, owner=me)
    promised_to = new_id()
    promise = [Promised(text="прислать «КП»", due_on=date(2030, 4, 15))]
    await scoring.hears(
        *(closed(promised_to, ago=ago, money=4_000_000, at=at) for ago in (200, 210, 220, 230)),
        spoke(promised_to, at - timedelta(days=90), promises=promise),
    )
    await scoring.turns_touches(at)
    given = await api.call("POST", "/v1/queue/next", {}, role="manager", manager_id=me)
    page = await api.call("GET", "/v1/queue", role="manager", manager_id=me)

    models = TypeAdapter(list[QueueEntry])
    assert len(page.json()) == 3
    assert models.dump_json(models.validate_json(page.content)) == page.content
    in_hand = InHand.model_validate_json(given.content)
    assert in_hand.model_dump_json().encode() == given.content


def test_slots_hold_whole_touches_in_the_companys_time() -> None:
    hours = QueuePolicy(
        slots=[
            {"opens_at": "15:00", "closes_at": "15:20"},
            {"opens_at": "10:00", "closes_at": "12:00"},
        ]
    ).slots
    slots = slots_on(datetime(2025, 3, 3, 22, tzinfo=UTC), hours, MOSCOW)
    assert [slot.begins_at for slot in slots] == [
        datetime(2025, 3, 4, 7, tzinfo=UTC),
        datetime(2025, 3, 4, 12, tzinfo=UTC),
    ]
    assert room_for(slots, 50) == 2
    assert room_for(slots, 20) == 7


async def test_the_report_counts_touches_by_segment_and_manager(api: App, scoring: Scoring) -> None:
    me = new_id()
    first, second = await overdue(scoring, 2, owner=me)
    await scoring.hears(spoke(first, now(), by=me))
    report = (await api.call("GET", "/v1/reports/touch-sla?begin=2000-01-01&end=2100-01-01")).json()
    (line,) = report
    assert (line["manager_id"], line["late"], line["overdue"]) == (str(me), 1, 1)
    assert line["compliance"] == 0
    assert second != first


@asynccontextmanager
async def served(app: App) -> AsyncIterator[str]:
    """The app behind a real server: a stream needs one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app.app, lifespan="off", log_level="warning")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


async def test_the_live_queue_sends_what_has_changed(api: App, scoring: Scoring) -> None:
    me = new_id()
    (first,) = await overdue(scoring, 1, owner=me)
    bearer = api.issuer.bearer("manager", manager_id=me)

    async def views(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
        async for line in lines:
            if line.startswith("data:"):
                yield json.loads(line.removeprefix("data:"))

    async with served(api) as base, httpx.AsyncClient(base_url=base, timeout=20) as http:
        async with asyncio.timeout(20):
            async with http.stream("GET", "/v1/queue/live", headers=bearer) as stream:
                assert stream.headers["content-type"].startswith("text/event-stream")
                seen = views(stream.aiter_lines())
                assert [e["client_id"] for e in (await anext(seen))["first"]] == [str(first)]
                await scoring.hears(spoke(first, now(), by=me))
                assert (await anext(seen))["first"] == []
        refused = await http.get("/v1/queue/live")
        assert refused.status_code == 401
