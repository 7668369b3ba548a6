"""Managers, shifts and claims over HTTP: what is refused, and with which words."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from libs.shared.calendars import Calendar
from libs.shared.ids import new_id
from tests.apps import App, problem
from tests.routing.conftest import Routing, received


async def hired(api: App, name: str = "Анна") -> UUID:
    made = await api.call("POST", "/v1/managers", {"name": name})
    assert made.status_code == 201, made.text
    return UUID(made.json()["id"])


async def working(api: App) -> UUID:
    manager = await hired(api)
    answer = await api.call(
        "POST", f"/v1/managers/{manager}/shift/start", {}, role="manager", manager_id=manager
    )
    assert answer.status_code == 200, answer.text
    return manager


async def offered(api: App, routing: Routing) -> tuple[UUID, UUID]:
    manager = await working(api)
    event = received(at=datetime.now(UTC))
    await routing.hears(event)
    await routing.offers(datetime.now(UTC))
    return event.lead_id, manager


async def test_a_manager_claims_their_lead_and_sees_why_it_was_theirs(
    api: App, routing: Routing
) -> None:
    lead, manager = await offered(api, routing)

    answer = await api.call(
        "POST", f"/v1/leads/{lead}/claim", {"epoch": 1}, role="manager", manager_id=manager
    )

    assert (answer.status_code, answer.json()["state"]) == (200, "claimed")
    story = (await api.call("GET", f"/v1/leads/{lead}")).json()
    assert [(o["manager_id"], o["why"], o["ended_how"]) for o in story["offers"]] == [
        (str(manager), "round robin, turn 1", "claimed")
    ]


async def test_two_managers_claim_together_and_one_gets_the_lead(
    api: App, routing: Routing
) -> None:
    lead, manager = await offered(api, routing)
    other = await working(api)

    answers = await asyncio.gather(
        *(
            api.call(
                "POST", f"/v1/leads/{lead}/claim", {"epoch": 1}, role="manager", manager_id=who
            )
            for who in (manager, other, manager, other)
        )
    )

    assert sorted(a.status_code for a in answers) == [200, 200, 409, 409]
    refused = next(a for a in answers if a.status_code == 409)
    assert problem(refused) == (409, "lead-offered-to-another")
    assert refused.json()["manager_id"] == str(manager)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"epoch": 2}, 409, "offer-stale"),
        ({"epoch": "1"}, 422, "request-invalid"),
        ({"epoch": 1.5}, 422, "request-invalid"),
        ({"epoch": 2**40}, 422, "request-invalid"),
        ({}, 422, "request-invalid"),
        ({"epoch": 1, "when": "now"}, 422, "request-invalid"),
        ([], 422, "request-invalid"),
    ],
)
async def test_bad_claims_are_refused(
    api: App, routing: Routing, body: object, status: int, code: str
) -> None:
    lead, manager = await offered(api, routing)

    answer = await api.call(
        "POST", f"/v1/leads/{lead}/claim", body, role="manager", manager_id=manager
    )

    assert problem(answer) == (status, code)


async def test_a_manager_acts_for_nobody_else(api: App, routing: Routing) -> None:
    lead, manager = await offered(api, routing)

    answer = await api.call(
        "POST",
        f"/v1/leads/{lead}/claim",
        {"epoch": 1, "manager_id": str(manager)},
        role="manager",
        manager_id=new_id(),
    )
    by_supervisor = await api.call(
        "POST", f"/v1/leads/{lead}/claim", {"epoch": 1, "manager_id": str(manager)}
    )

    assert problem(answer) == (403, "not-yourself")
    assert by_supervisor.status_code == 200


@pytest.mark.parametrize("role", ["support", "marketer", "analyst", "integration"])
async def test_other_roles_do_not_claim(api: App, role: str) -> None:
    answer = await api.call("POST", f"/v1/leads/{new_id()}/claim", {"epoch": 1}, role=role)
    assert problem(answer) == (403, "role-missing")


async def test_unknown_ids_are_not_found(api: App) -> None:
    unknown = new_id()
    for path, code in (
        (f"/v1/leads/{unknown}", "lead-not-found"),
        (f"/v1/managers/{unknown}", "manager-not-found"),
    ):
        assert problem(await api.call("GET", path)) == (404, code)
    assert problem(await api.call("GET", "/v1/leads/7"))[0] == 422


async def test_the_common_queue_is_offered_when_somebody_comes_on_shift(
    api: App, routing: Routing
) -> None:
    (lead,) = await routing.comes()
    assert [item["id"] for item in (await api.call("GET", "/v1/queue")).json()] == [str(lead)]

    manager = await working(api)
    await routing.offers(datetime.now(UTC) + timedelta(seconds=1))

    row = await routing.lead(lead)
    assert (row["state"], row["manager_id"], row["epoch"]) == ("offered", manager, 1)


async def test_a_lead_can_be_taken_from_the_common_queue_once(api: App, routing: Routing) -> None:
    (lead,) = await routing.comes()
    managers = [await hired(api), await hired(api)]

    answers = await asyncio.gather(
        *(
            api.call("POST", f"/v1/leads/{lead}/take", {}, role="manager", manager_id=manager)
            for manager in managers
        )
    )

    assert sorted(a.status_code for a in answers) == [200, 409]
    assert [name for name, _ in await routing.said(lead)] == [
        "lead.escalated",
        "lead.assigned",
        "lead.claimed",
    ]


async def test_a_supervisor_hands_a_lead_to_somebody_and_it_is_written_down(
    api: App, routing: Routing
) -> None:
    lead, _ = await offered(api, routing)
    other = await hired(api)

    answer = await api.call(
        "POST", f"/v1/leads/{lead}/assign", {"manager_id": str(other), "reason": "knows the client"}
    )

    assert answer.json()["manager_id"] == str(other)
    assert answer.json()["epoch"] == 2
    log = (await api.call("GET", "/v1/audit?action=lead.handed_over")).json()["items"]
    assert log[0]["details"]["to"] == str(other)
    story = (await api.call("GET", f"/v1/leads/{lead}")).json()
    assert [offer["ended_how"] for offer in story["offers"]] == ["superseded", None]


async def test_somebody_off_shift_gets_nothing(api: App, routing: Routing) -> None:
    manager = await working(api)
    await api.call(
        "POST", f"/v1/managers/{manager}/shift/end", {}, role="manager", manager_id=manager
    )

    event = received(at=datetime.now(UTC))
    await routing.hears(event)
    await routing.offers(datetime.now(UTC) + timedelta(seconds=1))

    assert (await routing.lead(event.lead_id))["state"] == "queued"


async def test_a_planned_shift_begins_by_itself(api: App, routing: Routing) -> None:
    manager = await hired(api)
    (lead,) = await routing.comes()
    begins = datetime.now(UTC) + timedelta(hours=2)
    planned = await api.call(
        "POST",
        f"/v1/managers/{manager}/shifts",
        {"starts_at": begins.isoformat(), "ends_at": (begins + timedelta(hours=8)).isoformat()},
    )
    assert planned.status_code == 201, planned.text

    assert await routing.attends(begins - timedelta(seconds=1)) == 0
    assert await routing.attends(begins) == 1
    await routing.offers(begins)

    assert (await routing.lead(lead))["manager_id"] == manager


async def test_a_calendar_opens_by_itself_and_a_shift_in_the_past_is_refused(
    api: App, routing: Routing
) -> None:
    week = {"monday": [{"opens_at": "09:00", "closes_at": "18:00"}]}
    made = await api.call(
        "POST",
        "/v1/managers",
        {"name": "Вера", "calendar": {"zone": "Asia/Yekaterinburg", "week": week}},
    )
    assert made.status_code == 201, made.text
    manager = UUID(made.json()["id"])
    calendar = Calendar.model_validate(made.json()["calendar"])
    opens = calendar.next_opening(datetime.now(UTC))
    assert opens.strftime("%A %H:%M") == "Monday 04:00"
    (lead,) = await routing.comes()
    await routing.attends(opens - timedelta(seconds=1))
    assert await routing.database.pool.fetchval("SELECT due_at FROM managers") == opens
    assert await routing.attends(opens) == 1
    await routing.offers(opens)
    assert (await routing.lead(lead))["manager_id"] == manager

    yesterday = datetime.now(UTC) - timedelta(days=1)
    late = await api.call(
        "POST",
        f"/v1/managers/{manager}/shifts",
        {
            "starts_at": (yesterday - timedelta(hours=8)).isoformat(),
            "ends_at": yesterday.isoformat(),
        },
    )
    assert problem(late) == (422, "shift-impossible")


async def test_a_manager_is_changed_by_the_version_one_saw(api: App) -> None:
    manager = await hired(api)
    path = f"/v1/managers/{manager}"

    first = await api.call("PATCH", path, {"name": "Анна С."}, headers={"If-Match": '"1"'})
    stale = await api.call("PATCH", path, {"name": "Аня"}, headers={"If-Match": '"1"'})
    bare = await api.call("PATCH", path, {"name": "Аня"})

    assert (first.json()["name"], first.headers["etag"]) == ("Анна С.", '"2"')
    assert problem(stale) == (412, "etag-stale")
    assert problem(bare) == (428, "if-match-required")


async def test_the_claim_window_is_policy(api: App, routing: Routing) -> None:
    changed = await api.call(
        "PUT",
        "/v1/policies/claims",
        {"body": {"claim_window_minutes": 5}},
        headers={"If-Match": '"0"'},
    )
    assert changed.status_code == 200, changed.text
    lead, _ = await offered(api, routing)

    row = await routing.lead(lead)
    window = row["due_at"] - await routing.database.pool.fetchval("SELECT offered_at FROM offers")
    assert window == timedelta(minutes=5)


async def test_leads_are_listed_in_pages(api: App, routing: Routing) -> None:
    await working(api)
    await routing.hears(*(received() for _ in range(5)))
    await routing.offers(datetime.now(UTC))

    first = (await api.call("GET", "/v1/leads?state=offered&limit=3")).json()
    cursor = first["next_cursor"]
    second = (await api.call("GET", f"/v1/leads?state=offered&limit=3&cursor={cursor}")).json()
    misused = await api.call("GET", f"/v1/leads?state=claimed&limit=3&cursor={cursor}")

    ids = [lead["id"] for lead in first["items"] + second["items"]]
    assert (len(ids), len(set(ids)), second["next_cursor"]) == (5, 5, None)
    assert problem(misused) == (400, "cursor-invalid")
    floor = (await api.call("GET", "/v1/floor")).json()
    assert [line["offered"] for line in floor["managers"]] == [5]
