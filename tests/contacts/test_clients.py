"""Cards: created once, found in any spelling, changed only by whoever has seen them."""

import asyncio
import unicodedata
from datetime import UTC, datetime

import pytest

from libs.shared.events import SegmentChanged
from libs.shared.ids import new_id
from tests.contacts.conftest import Contacts

NOON = datetime(2025, 3, 2, 12, tzinfo=UTC)


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


async def test_clients_are_found_by_what_is_known_of_them(contacts: Contacts) -> None:
    owner = str(new_id())
    anna = await contacts.add_client(
        "Анна Королёва", phones=["8 912 345-67-89"], email="Anna@Example.com", owner_id=owner
    )
    firm = await contacts.made(
        "/v1/clients",
        {
            "kind": "legal_entity",
            "full_name": "Общество «100% Ромашка_»",
            "short_name": "Ромашка",
            "tags": ["вебинар"],
            "status": "active",
            "source": "1c",
            "external_id": "77",
        },
    )

    async def found(**query: str) -> list[str]:
        answer = await contacts.http.get("/v1/clients", params=query)
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    assert firm["name"] == "Ромашка"
    for query in (
        {"phone": "+7 (912) 345 67 89"},
        {"phone": "9123456789.0"},
        {"email": "ANNA@example.COM"},
        {"name": "КОРОЛЕВ"},
        {"owner_id": owner},
        {"status": "lead"},
    ):
        assert await found(**query) == [anna["id"]], query
    for query in (
        {"name": "100% ром"},
        {"name": "ка_"},
        {"tag": "вебинар"},
        {"external_id": "77"},
        {"status": "active", "name": "ромашка"},
    ):
        assert await found(**query) == [firm["id"]], query
    assert await found(name="%") == [firm["id"]]
    assert await found() == [firm["id"], anna["id"]]
    assert await found(archived="true") == []
    bad = await contacts.http.get("/v1/clients?phone=много")
    assert (bad.status_code, bad.json()["code"]) == (422, "phone-unreadable")


async def test_a_list_goes_on_page_by_page_under_the_same_filters(contacts: Contacts) -> None:
    made = [(await contacts.add_client(f"Анна {n}"))["id"] for n in range(5)]
    first = (await contacts.http.get("/v1/clients?limit=3&name=анна")).json()
    await contacts.add_client("Анна новая")
    rest = await contacts.http.get(f"/v1/clients?name=анна&cursor={first['next_cursor']}")
    other = await contacts.http.get(f"/v1/clients?name=борис&cursor={first['next_cursor']}")

    listed = [item["id"] for item in first["items"] + rest.json()["items"]]
    assert listed == made[::-1]
    assert (other.status_code, other.json()["code"]) == (400, "cursor-invalid")


async def test_an_archived_card_is_read_and_restored_but_not_changed(contacts: Contacts) -> None:
    card = await contacts.add_client(phones=["89123456789"])
    path = f"/v1/clients/{card['id']}"
    loose = {"If-Match": "*"}
    await contacts.made(f"{path}/archive", {"reason": "дубль"}, **{"If-Match": '"1"'})
    refused = [
        await contacts.http.patch(path, json={"note": "x"}, headers=loose),
        await contacts.http.put(f"{path}/owner", json={"owner_id": None}, headers=loose),
        await contacts.post(f"{path}/archive", {"reason": "x"}, **loose),
        await contacts.post(f"{path}/interactions", {"kind": "note"}),
        await contacts.post(f"{path}/deals", {}),
    ]
    many = await contacts.made(
        "/v1/clients/archive", {"ids": [card["id"], str(new_id())], "reason": "чистка"}
    )
    shown = (await contacts.http.get(path)).json()
    restored = await contacts.http.post(f"{path}/restore", headers=loose)
    again = await contacts.http.post(f"{path}/restore", headers=loose)

    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {
        (409, "client-archived")
    }
    assert many["archived"] == 0
    assert sorted(many["refused"].values()) == ["client-archived", "client-not-found"]
    assert shown["archive_reason"] == "дубль"
    assert (restored.status_code, restored.json()["version"]) == (200, 3)
    assert (again.status_code, again.json()["code"]) == (409, "client-not-archived")


async def test_of_two_changes_at_once_one_is_stale(contacts: Contacts) -> None:
    card = await contacts.add_client()
    path = f"/v1/clients/{card['id']}"
    seen = {"If-Match": '"1"'}
    answers = await asyncio.gather(
        *(contacts.http.patch(path, json={"note": str(n)}, headers=seen) for n in range(4))
    )

    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]
    assert len(await contacts.said("client.changed")) == 1


async def test_a_manager_has_their_own_clients_and_those_nobody_has(contacts: Contacts) -> None:
    me, other = new_id(), new_id()
    mine = contacts.manager(me)
    own = await contacts.made("/v1/clients", {"name": "Мой"}, **mine)
    free = await contacts.add_client("Ничей")
    foreign = await contacts.add_client("Чужой", owner_id=str(other), phones=["89123456789"])
    path = f"/v1/clients/{foreign['id']}"
    loose = {**mine, "If-Match": "*"}

    assert own["owner_id"] == str(me)
    listed = (await contacts.http.get("/v1/clients", headers=mine)).json()["items"]
    assert {item["id"] for item in listed} == {own["id"], free["id"]}
    refused = [
        await contacts.http.get(path, headers=mine),
        await contacts.http.patch(path, json={"note": "x"}, headers=loose),
        await contacts.http.put(f"{path}/owner", json={"owner_id": str(me)}, headers=loose),
        await contacts.post(f"{path}/archive", {"reason": "x"}, **loose),
        await contacts.post(f"{path}/interactions", {"kind": "note"}, **mine),
        await contacts.post(f"{path}/deals", {}, **mine),
        await contacts.http.get(f"{path}/interactions", headers=mine),
        await contacts.http.get("/v1/screen-pop?phone=89123456789", headers=mine),
        await contacts.post("/v1/clients", {"name": "x", "owner_id": str(other)}, **mine),
    ]
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {
        (403, "client-not-yours")
    }
    taken = await contacts.http.put(
        f"/v1/clients/{free['id']}/owner",
        json={"owner_id": str(me), "reason": "знакомы"},
        headers=loose,
    )
    assert taken.json()["owner_id"] == str(me)
    (entry,) = (await contacts.http.get("/v1/audit?action=client.owner_changed")).json()["items"]
    assert entry["subject_id"] == free["id"]
    assert (entry["details"]["to"], entry["details"]["reason"]) == (str(me), "знакомы")


async def test_the_telephone_rings_and_one_call_shows_all(contacts: Contacts) -> None:
    anna = await contacts.add_client(phones=["8 912 345-67-89"])
    path = f"/v1/clients/{anna['id']}"
    promise = {"text": "счёт", "due_on": "2025-04-15"}
    await contacts.made(f"{path}/interactions", {"kind": "call", "promises": [promise]})
    deal = await contacts.made(f"{path}/deals", {"title": "Партия"})

    shown = (await contacts.http.get("/v1/screen-pop", params={"phone": "+79123456789"})).json()
    unknown = await contacts.http.get("/v1/screen-pop?phone=89990000000")

    assert shown["client"]["id"] == anna["id"]
    assert [talk["kind"] for talk in shown["interactions"]] == ["call"]
    assert [open_deal["id"] for open_deal in shown["open_deals"]] == [deal["id"]]
    assert [owed["text"] for owed in shown["open_promises"]] == ["счёт"]
    assert (unknown.status_code, unknown.json()["code"]) == (404, "caller-unknown")


async def test_the_card_shows_the_last_segment_whatever_the_order(contacts: Contacts) -> None:
    anna = await contacts.add_client()

    def moved(seq: int, segment: str | None) -> SegmentChanged:
        return SegmentChanged(
            client_id=anna["id"],
            seq=seq,
            new_segment=segment,
            rule_version=1,
            as_of=NOON.date(),
            reason="purchase",
            occurred_at=NOON,
        )

    await contacts.hears(moved(2, "loyal"), moved(1, "new"))
    await contacts.hears(moved(1, "new"))
    card = (await contacts.http.get(f"/v1/clients/{anna['id']}")).json()
    found = (await contacts.http.get("/v1/clients?segment=loyal")).json()["items"]
    assert (card["segment"], card["version"]) == ({"name": "loyal", "seq": 2}, 1)
    assert [item["id"] for item in found] == [anna["id"]]

    await contacts.hears(moved(3, None))
    card = (await contacts.http.get(f"/v1/clients/{anna['id']}")).json()
    assert card["segment"] == {"name": None, "seq": 3}


async def test_an_external_id_is_taken_once(contacts: Contacts) -> None:
    body = {"name": "Анна", "source": "1c", "external_id": "7"}
    first = await contacts.made("/v1/clients", body)
    again = await contacts.post("/v1/clients", body)
    sourceless = await contacts.post("/v1/clients", {"name": "Анна", "external_id": "7"})

    assert (again.status_code, again.json()["code"]) == (409, "client-exists")
    assert again.json()["client_id"] == first["id"]
    assert (sourceless.status_code, sourceless.json()["code"]) == (422, "source-missing")
    assert len(await contacts.said()) == 1


@pytest.mark.parametrize(
    ("kept", "wanted"),
    [
        (unicodedata.normalize("NFD", "Йошкин Фёдор"), "йошкин фед"),
        ("Йошкин Фёдор", unicodedata.normalize("NFD", "ЙОШКИН ФЁДОР")),
        ("Йошкин\u00a0 Фёдор", "йошкин федор"),
    ],
)
async def test_a_name_is_found_whatever_its_letters_are_made_of(
    contacts: Contacts, kept: str, wanted: str
) -> None:
    client = await contacts.add_client(kept)
    answer = await contacts.http.get("/v1/clients", params={"name": wanted})
    assert [item["id"] for item in answer.json()["items"]] == [client["id"]]
