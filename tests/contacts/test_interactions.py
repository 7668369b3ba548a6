"""What happened, what is planned, what was promised."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from libs.shared.events import MessageFailed, MessageSent
from libs.shared.ids import new_id
from tests.contacts.conftest import Contacts

NOON = datetime(2025, 3, 2, 12, tzinfo=UTC)
ANY = {"If-Match": "*"}


def in_days(days: float) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


async def plan(contacts: Contacts, client: Any, **changes: Any) -> Any:
    body = {"kind": "meeting", "starts_at": in_days(2), "topic": "Договор", **changes}
    return await contacts.made(f"/v1/clients/{client['id']}/interactions/plan", body)


async def test_a_talk_is_recorded_with_its_promises_in_one_call(contacts: Contacts) -> None:
    anna = await contacts.add_client()
    talk = {
        "kind": "call",
        "direction": "incoming",
        "happened_at": "2025-03-02T15:00:00+03:00",
        "topic": "Поставка",
        "outcome": "перенос по инициативе клиента",
        "objections": ["дорого"],
        "agreements": ["скидка 5 %"],
        "promises": [{"text": "прислать КП", "due_on": "2025-04-15"}],
    }
    made = await contacts.made(f"/v1/clients/{anna['id']}/interactions", talk)

    assert (made["state"], made["at"]) == ("recorded", "2025-03-02T12:00:00Z")
    (event,) = await contacts.said("interaction.recorded")
    assert (event["happened_at"], event["topic_text"]) == ("2025-03-02T12:00:00Z", "Поставка")
    (promise,) = (await contacts.http.get("/v1/promises?due_before=2025-04-16")).json()["items"]
    assert (promise["text"], promise["interaction_id"]) == ("прислать КП", made["id"])
    assert not (await contacts.http.get("/v1/promises?due_before=2025-04-15")).json()["items"]

    await contacts.made(f"/v1/promises/{promise['id']}/keep", {})
    twice = await contacts.post(f"/v1/promises/{promise['id']}/keep", {})
    assert (twice.status_code, twice.json()["code"]) == (409, "promise-kept")
    assert not (await contacts.http.get("/v1/promises")).json()["items"]


async def test_only_a_review_has_a_rating(contacts: Contacts) -> None:
    anna = await contacts.add_client()
    path = f"/v1/clients/{anna['id']}/interactions"
    made = await contacts.made(path, {"kind": "review", "rating": 4, "outcome": "всё хорошо"})
    assert made["rating"] == 4
    await contacts.made(path, {"kind": "review"})
    (rated, unrated) = await contacts.said("interaction.recorded")
    assert (rated["rating"], unrated["rating"]) == (4, None)

    for body in ({"kind": "call", "rating": 4}, {"kind": "review", "rating": 6}):
        refused = await contacts.post(path, body)
        assert (refused.status_code, refused.json()["code"]) == (422, "request-invalid")


async def test_a_planned_meeting_is_moved_and_then_held_for_good(contacts: Contacts) -> None:
    meeting = await plan(contacts, await contacts.add_client())
    path = f"/v1/interactions/{meeting['id']}"
    later = in_days(3)
    moved = await contacts.made(
        f"{path}/move", {"starts_at": later, "reason": "просьба"}, **{"If-Match": '"1"'}
    )
    stale = await contacts.post(f"{path}/cancel", {"reason": "x"}, **{"If-Match": '"1"'})
    held = await contacts.made(f"{path}/held", {"outcome": "подписали"}, **{"If-Match": '"2"'})
    final = [
        await contacts.post(f"{path}/{verb}", body, **ANY)
        for verb, body in (
            ("move", {"starts_at": in_days(4), "reason": "x"}),
            ("cancel", {"reason": "x"}),
            ("held", {"outcome": "x"}),
        )
    ]

    assert (moved["version"], moved["moves"], moved["state"]) == (2, 1, "planned")
    assert (stale.status_code, stale.json()["code"]) == (412, "etag-stale")
    assert (held["state"], held["outcome"], held["version"]) == ("held", "подписали", 3)
    assert {(answer.status_code, answer.json()["code"]) for answer in final} == {
        (409, "interaction-not-planned")
    }
    told = await contacts.said("interaction.planned", "interaction.moved", "interaction.held")
    assert [event["version"] for event in told] == [1, 2, 3]
    assert told[1]["previous_starts_at"] == told[0]["starts_at"]


async def test_of_a_move_and_a_cancellation_at_once_one_wins(contacts: Contacts) -> None:
    meeting = await plan(contacts, await contacts.add_client())
    path = f"/v1/interactions/{meeting['id']}"
    answers = await asyncio.gather(
        contacts.post(f"{path}/cancel", {"reason": "болен"}, **{"If-Match": '"1"'}),
        contacts.post(
            f"{path}/move", {"starts_at": in_days(5), "reason": "x"}, **{"If-Match": '"1"'}
        ),
    )

    assert sorted(answer.status_code for answer in answers) == [200, 412]
    assert len(await contacts.said("interaction.cancelled", "interaction.moved")) == 1


async def test_a_batch_of_interactions_is_recorded_once(contacts: Contacts) -> None:
    anna = await contacts.add_client()
    promise = {"text": "перезвонить", "due_on": "2025-05-01"}
    batch = {
        "source": "telephony",
        "items": [
            {"client_id": anna["id"], "kind": "call", "external_id": "1", "promises": [promise]},
            {"client_id": str(new_id()), "kind": "call", "external_id": "2"},
            {"client_id": anna["id"], "kind": "dance"},
            {"client_id": anna["id"], "kind": "note", "happened_at": in_days(1)},
        ],
    }
    first = await contacts.made("/v1/interactions/batch", batch)
    again = await contacts.made("/v1/interactions/batch", batch)

    assert [item["outcome"] for item in first["items"]] == ["created"] + ["refused"] * 3
    assert [item["problem"]["errors"][0]["code"] for item in first["items"][1:]] == [
        *("client-not-found", "literal-error", "happened-in-future")
    ]
    assert again["items"][0] == first["items"][0] | {"outcome": "exists"}
    assert await contacts.count("interactions") == await contacts.count("promises") == 1


async def test_the_timeline_goes_on_page_by_page(contacts: Contacts) -> None:
    anna = await contacts.add_client()
    path = f"/v1/clients/{anna['id']}/interactions"
    for day in (3, 1, 2, 2, 1):
        await contacts.made(path, {"kind": "note", "happened_at": f"2025-03-0{day}T00:00:00Z"})
    days = []
    cursor = ""
    while True:
        page = (await contacts.http.get(f"{path}?limit=2{cursor}")).json()
        days += [int(item["at"][8:10]) for item in page["items"]]
        if not page["next_cursor"]:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert days == [3, 2, 2, 1, 1]


async def test_messages_stand_in_the_timeline_and_failed_ones_stay_failed(
    contacts: Contacts,
) -> None:
    anna = await contacts.add_client()
    common = {"client_id": anna["id"], "channel": "email", "template": "meeting"}
    good, bad = new_id(), new_id()
    failed = MessageFailed(message_id=bad, reason="no such box", occurred_at=NOON, **common)
    await contacts.hears(
        failed,
        MessageSent(message_id=good, occurred_at=NOON, **common),
        MessageSent(message_id=bad, occurred_at=NOON, **common),
        MessageSent(message_id=new_id(), occurred_at=NOON, **common | {"client_id": new_id()}),
    )
    await contacts.hears(failed)

    page = (await contacts.http.get(f"/v1/clients/{anna['id']}/interactions")).json()
    assert {(item["id"], item["outcome"]) for item in page["items"]} == {
        (str(good), "sent"),
        (str(bad), "failed"),
    }
    assert not await contacts.said("interaction.recorded")


@pytest.mark.parametrize(
    ("verb", "body", "code"),
    [
        ("plan", {"kind": "meeting", "starts_at": "2020-01-01T00:00:00Z"}, "starts-in-past"),
        ("plan", {"kind": "letter", "starts_at": "2999-01-01T00:00:00Z"}, "literal-error"),
        ("plan", {"kind": "call", "starts_at": "завтра"}, None),
        ("plan", {"kind": "call", "starts_at": "2999-02-30T00:00:00Z"}, None),
        ("", {"kind": "call", "happened_at": "2999-01-01T00:00:00Z"}, "happened-in-future"),
        ("", {"kind": "call", "promises": [{"text": "x"}]}, "missing"),
        ("", {"kind": "call", "duration_minutes": -1}, "greater-than-equal"),
        ("", {"kind": "call", "mood": "good"}, "extra-forbidden"),
    ],
)
async def test_impossible_interactions_are_refused(
    contacts: Contacts, verb: str, body: dict[str, Any], code: str | None
) -> None:
    anna = await contacts.add_client()
    answer = await contacts.post(f"/v1/clients/{anna['id']}/interactions/{verb}".rstrip("/"), body)

    assert answer.status_code == 422
    errors = answer.json()["errors"]
    assert code is None or errors[0]["code"] == code
    assert await contacts.count("interactions") == 0
