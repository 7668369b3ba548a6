"""Thousands of deals at once: each judged for itself, never brought twice."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from libs.shared.ids import new_id
from tests.contacts.conftest import Contacts


def won(client: Any, number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "external_id": f"p-{number}",
        "client_id": client["id"],
        "amount_minor": 1999,
        "currency": "USD",
        "closed_at": "1997-01-01T12:00:00+00:00",
        "outcome": "won",
    } | changes


def batch(*items: Any, **frame: Any) -> dict[str, Any]:
    return {"source": "cdnow", "items": list(items), **frame}


async def test_a_batch_closes_deals_and_tells_them_in_its_order(contacts: Contacts) -> None:
    anna, boris = await contacts.add_client(), await contacts.add_client("Борис")
    items = [won((anna, boris)[n % 2], 9 - n, amount_minor=n) for n in range(6)]

    answer = await contacts.made("/v1/deals/batch", batch(*items))

    assert answer["created"] == 6
    told = await contacts.said("deal.closed")
    assert [event["amount_minor"] for event in told] == [0, 1, 2, 3, 4, 5]
    assert [event["deal_id"] for event in told] == [item["id"] for item in answer["items"]]
    assert told[0]["closed_at"] == "1997-01-01T12:00:00Z"
    deal = (await contacts.http.get(f"/v1/deals/{told[1]['deal_id']}")).json()
    assert (deal["state"], deal["amount_minor"], deal["stage"]) == ("won", 1, "closing")


async def test_cheques_of_nobody_make_no_clients(contacts: Contacts) -> None:
    """In a real chain nearly half of the cheques carry a random id instead of a card."""
    anna = await contacts.add_client()
    cheques = [won(anna if n % 2 else {"id": str(uuid4())}, n) for n in range(20)]

    answer = await contacts.made("/v1/deals/batch", batch(*cheques))

    assert (answer["created"], answer["refused"]) == (10, 10)
    refused = [item for item in answer["items"] if item["outcome"] == "refused"]
    assert {item["problem"]["code"] for item in refused} == {"client-not-found"}
    assert {event["client_id"] for event in await contacts.said("deal.closed")} == {anna["id"]}
    assert await contacts.count("clients") == 1
    assert len(await contacts.said("client.created")) == 1


async def test_a_batch_that_comes_again_adds_nothing(contacts: Contacts) -> None:
    anna = await contacts.add_client()
    items = [won(anna, number) for number in range(4)]
    first = await contacts.made("/v1/deals/batch", batch(*items, items[0]))
    again = await contacts.made("/v1/deals/batch", batch(*reversed(items)))

    assert (first["created"], first["exists"]) == (4, 1)
    assert again["exists"] == 4
    assert [item["id"] for item in again["items"]] == [
        item["id"] for item in reversed(first["items"][:4])
    ]
    assert len(await contacts.said("deal.closed")) == await contacts.count("deals") == 4


async def test_the_same_batch_at_once_with_and_without_a_key_is_one(contacts: Contacts) -> None:
    anna = await contacts.add_client()
    items = [won(anna, number) for number in range(50)]
    keyed = {"Idempotency-Key": "one"}
    answers = await asyncio.gather(
        *(contacts.post("/v1/deals/batch", batch(*items), **keyed) for _ in range(3)),
        *(contacts.post("/v1/deals/batch", batch(*reversed(items))) for _ in range(3)),
    )

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers[:3]}) == 1
    created = sum(answer.json()["created"] for answer in [answers[0], *answers[3:]])
    assert created == await contacts.count("deals") == 50
    assert len(await contacts.said("deal.closed")) == 50


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"client_id": str(new_id())}, "/client_id", "client-not-found"),
        ({"client_id": 7}, "/client_id", "uuid-type"),
        ({"amount_minor": -1}, "/amount_minor", "greater-than-equal"),
        ({"amount_minor": "1"}, "/amount_minor", "int-type"),
        ({"amount_minor": None}, "/amount_minor", "amount-missing"),
        ({"currency": "rub"}, "/currency", "string-pattern-mismatch"),
        ({"closed_at": "2997-02-30T00:00:00Z"}, "/closed_at", "datetime-from-date-parsing"),
        ({"closed_at": "2900-01-01T00:00:00Z"}, "/closed_at", "closed-in-future"),
        ({"closed_at": "1997-01-01T00:00:00"}, "/closed_at", "timezone-aware"),
        ({"outcome": "lost"}, "/reason", "reason-missing"),
        ({"outcome": "lost", "reason": "weather"}, "/reason", "reason-unknown"),
        ({"outcome": "maybe"}, "/outcome", "literal-error"),
        ({"colour": 1}, "/colour", "extra-forbidden"),
    ],
)
async def test_a_bad_deal_is_told_and_the_others_go_through(
    contacts: Contacts, change: dict[str, Any], pointer: str, code: str
) -> None:
    anna = await contacts.add_client()
    items = [won(anna, 1), won(anna, 2, **change), won(anna, 3)]

    answer = await contacts.made("/v1/deals/batch", batch(*items))
    whole = await contacts.post("/v1/deals/batch", batch(*items, mode="all_or_nothing"))

    assert [item["outcome"] for item in answer["items"]] == ["created", "refused", "created"]
    problem = answer["items"][1]["problem"]
    assert (problem["pointer"], problem["errors"][0]["code"]) == (f"/items/1{pointer}", code)
    assert (whole.status_code, whole.json()["code"]) == (422, "batch-refused")
    assert await contacts.count("deals") == 2


async def test_lost_deals_carry_their_reason(contacts: Contacts) -> None:
    anna = await contacts.add_client()
    lost = won(anna, outcome="lost", reason="price", amount_minor=None, currency=None)
    await contacts.made("/v1/deals/batch", batch(lost))

    (event,) = await contacts.said("deal.lost")
    assert event["reason"] == "price"
