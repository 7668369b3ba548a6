"""Many cards in one request: each is judged for itself, the good ones are done together."""

import asyncio

from libs.shared.ids import new_id
from tests.contacts.conftest import Contacts


async def test_many_cards_are_read_in_the_order_asked_for(contacts: Contacts) -> None:
    first, second = await contacts.add_client("Анна"), await contacts.add_client("Борис")
    unknown = str(new_id())

    answer = await contacts.made(
        "/v1/clients/read", {"ids": [second["id"], unknown, first["id"], second["id"]]}
    )

    assert [card["name"] for card in answer["items"]] == ["Борис", "Анна"]
    assert answer["refused"] == {unknown: "client-not-found"}


async def test_a_manager_reads_only_their_own_among_many(contacts: Contacts) -> None:
    mine, theirs = new_id(), new_id()
    own = await contacts.add_client("Своя", owner_id=str(mine))
    foreign = await contacts.add_client("Чужая", owner_id=str(theirs))

    answer = await contacts.http.post(
        "/v1/clients/read", json={"ids": [own["id"], foreign["id"]]}, headers=contacts.manager(mine)
    )

    assert [card["name"] for card in answer.json()["items"]] == ["Своя"]
    assert answer.json()["refused"] == {foreign["id"]: "client-not-yours"}


async def test_good_changes_are_made_and_bad_ones_told(contacts: Contacts) -> None:
    cards = [await contacts.add_client(f"Клиент {n}") for n in range(4)]
    await contacts.made(
        f"/v1/clients/{cards[3]['id']}/archive", {"reason": "дубль"}, **{"If-Match": "*"}
    )
    unknown = str(new_id())

    answer = await contacts.made(
        "/v1/clients/change",
        {
            "items": [
                {"id": cards[0]["id"], "version": 1, "change": {"tags": ["VIP"]}},
                {"id": cards[1]["id"], "change": {"phones": ["abc"]}},
                {"id": cards[2]["id"], "version": 7, "change": {"tags": ["VIP"]}},
                {"id": cards[3]["id"], "change": {"tags": ["VIP"]}},
                {"id": unknown, "change": {"tags": ["VIP"]}},
                {"id": cards[1]["id"], "change": {}},
            ]
        },
    )

    told = [(i["outcome"], (i["problem"] or {}).get("code")) for i in answer["items"]]
    assert told == [
        ("changed", None),
        ("refused", "phone-unreadable"),
        ("refused", "etag-stale"),
        ("refused", "client-archived"),
        ("refused", "client-not-found"),
        ("unchanged", None),
    ]
    assert (answer["changed"], answer["unchanged"], answer["refused"]) == (1, 1, 4)
    said = await contacts.said("client.changed")
    assert [(e["client_id"], e["version"], e["changed"]) for e in said] == [
        (cards[0]["id"], 2, ["tags"])
    ]


async def test_two_batches_over_the_same_cards_do_not_lock_each_other_out(
    contacts: Contacts,
) -> None:
    cards = [await contacts.add_client(f"Клиент {n}") for n in range(20)]

    def changes(tag: str, order: int) -> dict[str, object]:
        return {"items": [{"id": c["id"], "change": {"tags": [tag]}} for c in cards[::order]]}

    answers = await asyncio.gather(
        contacts.made("/v1/clients/change", changes("a", 1)),
        contacts.made("/v1/clients/change", changes("b", -1)),
    )

    assert [answer["changed"] for answer in answers] == [20, 20]
    versions = {e["version"] for e in await contacts.said("client.changed")}
    assert versions == {2, 3}


async def test_a_repeated_batch_changes_once(contacts: Contacts) -> None:
    card = await contacts.add_client()
    body = {"items": [{"id": card["id"], "change": {"note": "перезвонить"}}]}

    first = await contacts.made("/v1/clients/change", body, **{"Idempotency-Key": "k-1"})
    second = await contacts.made("/v1/clients/change", body, **{"Idempotency-Key": "k-1"})

    assert first == second
    assert len(await contacts.said("client.changed")) == 1
