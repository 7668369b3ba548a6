"""Complaints and talks that a bot hands over are leads: somebody gets them, with context."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from libs.shared.ids import new_id
from tests.contacts.conftest import Contacts

COMPLAINT = {"kind": "complaint", "direction": "incoming", "topic": "Брак", "outcome": "скол"}


def ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


async def test_a_complaint_is_a_lead_of_its_client(contacts: Contacts) -> None:
    owner = str(new_id())
    anna = await contacts.add_client(phones=["+79123456789"], owner_id=owner, language="ru")
    made = await contacts.made(f"/v1/clients/{anna['id']}/interactions", COMPLAINT)
    await contacts.made(f"/v1/clients/{anna['id']}/interactions", {**COMPLAINT, "kind": "call"})

    (event,) = await contacts.said("lead.received")
    told = {name: event[name] for name in ("client_id", "owner_id", "is_returning", "language")}
    assert told == {
        "client_id": anna["id"],
        "owner_id": owner,
        "is_returning": True,
        "language": "ru",
    }
    assert (event["kind"], event["interaction_id"]) == ("complaint", made["id"])
    lead = (await contacts.http.get(f"/v1/leads/{event['lead_id']}")).json()
    assert (lead["kind"], lead["note"], lead["phones"]) == (
        "complaint",
        "Брак\nскол",
        ["+79123456789"],
    )
    assert lead["interaction_id"] == made["id"]


async def test_a_complaint_sent_twice_or_of_long_ago_is_no_second_work(contacts: Contacts) -> None:
    anna = await contacts.add_client()
    fresh = {**COMPLAINT, "client_id": anna["id"], "happened_at": ago(1), "external_id": "1"}
    old = {**fresh, "happened_at": ago(8), "external_id": "2"}
    batch = {"source": "helpdesk", "items": [fresh, old]}
    answers = await asyncio.gather(
        *(contacts.post("/v1/interactions/batch", batch) for _ in range(3))
    )

    assert [answer.status_code for answer in answers] == [200] * 3
    assert await contacts.count("interactions") == 2
    assert len(await contacts.said("lead.received")) == await contacts.count("leads") == 1


@pytest.mark.parametrize("changes", [{"become_leads": False}, {"not_older_than_days": 0}])
async def test_the_policy_says_which_complaints_become_leads(
    contacts: Contacts, changes: dict[str, object]
) -> None:
    read = await contacts.http.get("/v1/policies/complaints")
    body = {"body": read.json()["body"] | changes}
    headers = {"If-Match": read.headers["ETag"]}
    await contacts.http.put("/v1/policies/complaints", json=body, headers=headers)
    anna = await contacts.add_client()
    complaint = {**COMPLAINT, "happened_at": ago(1)}
    await contacts.made(f"/v1/clients/{anna['id']}/interactions", complaint)

    assert not await contacts.said("lead.received")


async def test_a_bot_hands_over_with_all_that_was_said(contacts: Contacts) -> None:
    lines = [
        {"by": "client", "text": "Сколько стоит?"},
        {"by": "bot", "text": "От 10 000 ₽."},
        {"by": "client", "text": "Мне нужен договор 🙏"},
    ]
    body = {
        "phone": "89123456789",
        "channel": "messenger",
        "source": "telegram",
        "hand_off": {"reason": "просит человека", "lines": lines},
    }
    first = await contacts.post("/v1/leads", body, **{"Idempotency-Key": "bot-1"})
    again = await contacts.post("/v1/leads", body, **{"Idempotency-Key": "bot-1"})
    assert first.content == again.content

    lead = first.json()
    (event,) = await contacts.said("lead.received")
    assert event["kind"] == lead["kind"] == "handoff"
    assert event["interaction_id"] == lead["interaction_id"]
    talk = (await contacts.http.get(f"/v1/interactions/{lead['interaction_id']}")).json()
    assert (talk["topic"], talk["recorded_by"]) == ("просит человека", "bot")
    assert talk["outcome"] == (
        "Клиент: Сколько стоит?\nБот: От 10 000 ₽.\nКлиент: Мне нужен договор 🙏"
    )
    assert not await contacts.said("interaction.recorded")  # nobody of ours has spoken with them
    assert "10 000" not in str(event)


async def test_a_hand_off_without_a_word_is_refused(contacts: Contacts) -> None:
    body = {"phone": "89123456789", "hand_off": {"reason": "молчит", "lines": []}}
    answer = await contacts.post("/v1/leads", body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/hand_off/lines"
    assert not await contacts.count("leads")
