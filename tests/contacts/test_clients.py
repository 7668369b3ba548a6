"""Cards: created once, found in any spelling, changed only by whoever has seen them."""

import asyncio

from tests.contacts.conftest import Contacts


async def test_a_card_is_created_told_and_read_again(contacts: Contacts) -> None:
    answer = await contacts.post(
        "/v1/clients",
        {"name": " Анна Смирнова ", "phones": ["8 (912) 345-67-89"], "email": "Anna@Example.COM"},
    )

    assert answer.status_code == 201, answer.text
    card = answer.json()
    assert card["name"] == "Анна Смирнова"
    assert card["phones"] == [{"number": "+79123456789", "display": "+7 (912) 345-67-89"}]
    assert card["email"] == "Anna@example.com"
    assert card["possible_duplicates"] == []
    assert answer.headers["ETag"] == '"1"'

    read = await contacts.http.get(answer.headers["Location"])
    assert read.json() | {"possible_duplicates": []} == card
    (event,) = await contacts.said()
    assert event["event"] == "client.created"
    assert event["card"]["phones"] == ["+79123456789"]


async def test_a_card_that_shares_a_phone_or_an_address_is_named(contacts: Contacts) -> None:
    by_phone = await contacts.add_client(phones=["89123456789"])
    by_email = await contacts.add_client(email="a@example.com")

    card = await contacts.add_client(phones=["+7 912 345 67 89"], email="A@EXAMPLE.com")

    assert card["possible_duplicates"] == [by_phone["id"], by_email["id"]]


async def test_the_same_command_twice_or_at_once_creates_one_card(contacts: Contacts) -> None:
    body = {"name": "Анна", "phones": ["89123456789"]}
    headers = {"Idempotency-Key": "k-1"}
    answers = await asyncio.gather(
        *(contacts.post("/v1/clients", body, **headers) for _ in range(6))
    )
    answers.append(await contacts.post("/v1/clients", body, **headers))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert await contacts.count("clients") == await contacts.count("outbox") == 1
    assert answers[-1].headers["Idempotency-Replayed"] == "true"
    other = await contacts.post("/v1/clients", {"name": "Борис"}, **headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


async def test_a_batch_creates_what_is_good_and_tells_what_is_not(contacts: Contacts) -> None:
    batch = {
        "source": "cdnow",
        "items": [
            {"external_id": "1", "name": "A", "phones": ["8 912 345 67 89"], "tags": ["CDNOW"]},
            {"external_id": "2", "name": "B", "phones": ["много"]},
            {"external_id": "1", "name": "A again"},
            {"external_id": "3", "name": "C", "unknown": 1},
            {"external_id": "4", "name": "D", "email": "d@example.com"},
        ],
    }
    first = await contacts.made("/v1/clients/batch", batch)
    second = await contacts.made("/v1/clients/batch", batch)

    assert [item["outcome"] for item in first["items"]] == [
        *("created", "refused", "exists", "refused", "created"),
    ]
    assert (first["created"], first["exists"], first["refused"]) == (2, 1, 2)
    assert first["items"][1]["problem"]["code"] == "phone-unreadable"
    assert first["items"][1]["problem"]["pointer"] == "/items/1/phones/0"
    assert first["items"][3]["problem"]["errors"][0]["pointer"] == "/items/3/unknown"
    assert first["items"][2]["id"] == first["items"][0]["id"]
    assert (second["created"], second["exists"]) == (0, 3)
    assert second["items"][4]["id"] == first["items"][4]["id"]
    assert await contacts.count("clients") == len(await contacts.said("client.created")) == 2


async def test_a_card_is_changed_by_who_has_seen_it(contacts: Contacts) -> None:
    card = await contacts.add_client()
    path = f"/v1/clients/{card['id']}"
    change = {"phones": ["8 (921) 555-12-34"]}

    changed = await contacts.http.patch(path, json=change, headers={"If-Match": '"1"'})
    stale = await contacts.http.patch(path, json={"note": "x"}, headers={"If-Match": '"1"'})
    same = await contacts.http.patch(path, json=change, headers={"If-Match": '"2"'})
    blind = await contacts.http.patch(path, json=change)

    assert changed.status_code == 200, changed.text
    assert (changed.json()["version"], changed.headers["ETag"]) == (2, '"2"')
    assert (stale.status_code, stale.json()["code"]) == (412, "etag-stale")
    assert same.json()["version"] == 2
    assert (blind.status_code, blind.json()["code"]) == (428, "if-match-required")
    (event,) = await contacts.said("client.changed")
    assert (event["changed"], event["card"]["phones"]) == (["phones"], ["+79215551234"])
