"""A deal: opened, moved through its stages, won or lost for good, and given back at most once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.contacts.conftest import Contacts

LOOSE = {"If-Match": "*"}
PRICE = {"amount_minor": 1000, "currency": "RUB"}


async def opened(contacts: Contacts, **changes: Any) -> Any:
    anna = await contacts.add_client()
    return await contacts.made(f"/v1/clients/{anna['id']}/deals", changes)


async def test_a_deal_goes_through_its_stages_and_is_won(contacts: Contacts) -> None:
    deal = await opened(contacts)
    path = f"/v1/deals/{deal['id']}"
    assert (deal["stage"], deal["pipeline"], deal["state"]) == ("first_contact", "standard", "open")

    moved = await contacts.made(f"{path}/stage", {"stage": "proposal"}, **{"If-Match": '"1"'})
    back = await contacts.made(f"{path}/stage", {"stage": "presentation"}, **{"If-Match": '"2"'})
    same = await contacts.made(f"{path}/stage", {"stage": "presentation"}, **{"If-Match": '"3"'})
    stale = await contacts.post(f"{path}/win", PRICE, **{"If-Match": '"1"'})
    won = await contacts.made(f"{path}/win", PRICE, **{"If-Match": '"3"'})
    closed = [
        await contacts.post(f"{path}/{verb}", body, **LOOSE)
        for verb, body in (
            ("win", PRICE),
            ("lose", {"reason": "price"}),
            ("stage", {"stage": "closing"}),
        )
    ]

    assert [moved["version"], back["version"], same["version"]] == [2, 3, 3]
    assert (stale.status_code, stale.json()["code"]) == (412, "etag-stale")
    assert (won["state"], won["amount_minor"]) == ("won", 1000)
    assert {(answer.status_code, answer.json()["code"]) for answer in closed} == {
        (409, "deal-closed")
    }
    told = await contacts.said("deal.opened", "deal.stage_changed", "deal.closed")
    assert [event["event"] for event in told] == [
        *("deal.opened", "deal.stage_changed", "deal.stage_changed", "deal.closed")
    ]


async def test_money_is_given_back_in_parts_up_to_the_amount(contacts: Contacts) -> None:
    deal = await opened(contacts)
    path = f"/v1/deals/{deal['id']}"
    early = await contacts.post(f"{path}/reverse", {"reason": "брак"}, **LOOSE)
    await contacts.made(f"{path}/win", PRICE, **LOOSE)
    part = {"amount_minor": 400, "reason": "брак"}
    first = await contacts.made(f"{path}/reverse", part, **LOOSE)
    too_much = await contacts.post(f"{path}/reverse", part | {"amount_minor": 601}, **LOOSE)
    rest = await contacts.made(f"{path}/reverse", {"reason": "всё"}, **LOOSE)
    nothing_left = await contacts.post(f"{path}/reverse", {"reason": "ещё"}, **LOOSE)

    assert (early.status_code, early.json()["code"]) == (409, "deal-not-won")
    assert (first["returned_minor"], rest["returned_minor"]) == (400, 1000)
    assert (too_much.status_code, too_much.json()["left_minor"]) == (409, 600)
    assert (nothing_left.status_code, nothing_left.json()["code"]) == (409, "return-exceeds-amount")
    told = await contacts.said("deal.reversed")
    assert [(event["amount_minor"], event["is_full"]) for event in told] == [
        *((400, False), (600, True))
    ]


async def test_of_two_returns_at_once_one_is_refused(contacts: Contacts) -> None:
    deal = await opened(contacts)
    path = f"/v1/deals/{deal['id']}"
    await contacts.made(f"{path}/win", PRICE, **LOOSE)
    body = {"amount_minor": 600, "reason": "брак"}
    answers = await asyncio.gather(
        *(contacts.post(f"{path}/reverse", body, **LOOSE) for _ in range(3))
    )

    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
    assert await contacts.count("reversals") == len(await contacts.said("deal.reversed")) == 1


async def test_a_lost_deal_needs_a_reason_of_the_list(contacts: Contacts) -> None:
    deal = await opened(contacts)
    path = f"/v1/deals/{deal['id']}/lose"
    without = await contacts.post(path, {}, **LOOSE)
    unknown = await contacts.post(path, {"reason": "weather"}, **LOOSE)
    changed = await contacts.http.put(
        "/v1/policies/refusals",
        json={"body": {"reasons": [{"code": "weather", "label": "Погода"}]}},
        headers={"If-Match": '"0"'},
    )
    lost = await contacts.made(path, {"reason": "weather"}, **LOOSE)

    assert (without.status_code, without.json()["errors"][0]["code"]) == (422, "missing")
    assert (unknown.status_code, unknown.json()["code"]) == (422, "reason-unknown")
    assert unknown.json()["known"] == ["doubts", "our_choice", "price", "time"]
    assert changed.status_code == 200, changed.text
    assert (lost["state"], lost["reason"]) == ("lost", "weather")
    assert len(await contacts.said("deal.lost")) == 1


async def test_impossible_deals_are_refused(contacts: Contacts) -> None:
    deal = await opened(contacts)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    at_client, at_deal = f"/v1/clients/{deal['client_id']}/deals", f"/v1/deals/{deal['id']}"
    for path, body, code in (
        (at_client, {"pipeline": "secret"}, "pipeline-unknown"),
        (at_client, {"stage": "limbo"}, "stage-unknown"),
        (at_client, {"opened_at": tomorrow}, "closed-in-future"),
        (f"{at_deal}/stage", {"stage": "limbo"}, "stage-unknown"),
        (f"{at_deal}/win", PRICE | {"closed_at": tomorrow}, "closed-in-future"),
        (f"{at_deal}/win", PRICE | {"closed_at": "1997-01-01T00:00:00Z"}, "closed-before-opened"),
        (f"{at_deal}/win", PRICE | {"amount_minor": -1}, "greater-than-equal"),
        (f"{at_deal}/win", PRICE | {"amount_minor": 10.5}, "int-type"),
        (f"{at_deal}/win", PRICE | {"currency": "рубли"}, "string-pattern-mismatch"),
        (f"{at_deal}/reverse", {"amount_minor": 0, "reason": "x"}, "greater-than-equal"),
    ):
        answer = await contacts.post(path, body, **LOOSE)
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["code"] == code, (path, body)
    assert len(await contacts.said()) == 2


async def test_a_purchase_of_nothing_can_be_taken_back_once(contacts: Contacts) -> None:
    deal = await opened(contacts)
    path = f"/v1/deals/{deal['id']}"
    await contacts.made(f"{path}/win", PRICE | {"amount_minor": 0}, **LOOSE)
    await contacts.made(f"{path}/reverse", {"reason": "ошибка"}, **LOOSE)
    again = await contacts.post(f"{path}/reverse", {"reason": "ошибка"}, **LOOSE)

    assert (again.status_code, again.json()["code"]) == (409, "return-exceeds-amount")
    (event,) = await contacts.said("deal.reversed")
    assert (event["amount_minor"], event["is_full"]) == (0, True)
