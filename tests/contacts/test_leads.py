"""Leads: they find their client, whatever door and spelling they come by; nothing is lost."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from libs.shared.database import Database
from libs.shared.events import (
    LeadAssigned,
    LeadClaimed,
    LeadClosed,
    LeadConverted,
    LeadEscalated,
    LeadReleased,
    LeadUnclaimed,
)
from libs.shared.ids import new_id
from libs.shared.webhooks import sign
from services.contacts.leads.webhook_intake import take_in_forms
from tests.contacts.conftest import FORM, SECRET, Contacts

NOON = datetime(2025, 3, 2, 12, tzinfo=UTC)


async def submit(
    contacts: Contacts, body: Any, *, identity: str | None = None, spoil: bytes = b"", ago: int = 0
) -> httpx.Response:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    headers = sign(
        SECRET,
        identity=identity or f"msg_{new_id().hex}",
        raw=raw,
        at=datetime.now(UTC) - timedelta(seconds=ago),
    )
    return await contacts.http.post(
        f"/v1/webhooks/forms/{FORM}", content=raw + spoil, headers=headers
    )


async def work(database: Database) -> None:
    """What the worker's timer does until nothing is due."""
    fired = 1
    while fired:
        async with database.transaction() as tx:
            fired = await take_in_forms(tx, datetime.now(UTC) + timedelta(seconds=1))


async def test_a_lead_finds_its_client_by_any_spelling(contacts: Contacts) -> None:
    manager = str(new_id())
    anna = await contacts.add_client(phones=["+79123456789"], owner_id=manager)
    await contacts.add_client("Двойник", phones=["+79123456789"])

    lead = await contacts.made("/v1/leads", {"phone": "8 (912) 345-67-89", "city": "Пермь"})

    assert (lead["client_id"], lead["is_returning"]) == (anna["id"], True)
    (event,) = await contacts.said("lead.received")
    assert (event["owner_id"], event["city"], event["is_returning"]) == (manager, "Пермь", True)
    shown = (await contacts.http.get(f"/v1/leads/{lead['id']}")).json()
    assert shown == lead
    assert lead["state"] == "received"


async def test_a_lead_tells_what_it_is_routed_by_and_no_phone(contacts: Contacts) -> None:
    body = {
        "phone": "8 (343) 234-56-78",
        "region": "Урал",
        "site": "https://www.Baza.ru/promo?x=1",
        "utm": {"utm_source": "yandex", "utm_term": "crm", "visitor": "Иван"},
        "amount_minor": 500_000_00,
        "currency": "RUB",
        "complexity": "complex",
    }
    lead = await contacts.made("/v1/leads", body)

    (event,) = await contacts.said("lead.received")
    told = {name: event[name] for name in ("phone_country", "phone_region", "domain", "region")}
    assert told == {
        "phone_country": "RU",
        "phone_region": "Свердловская обл",
        "domain": "baza.ru",
        "region": "Урал",
    }
    assert event["utm"] == {"source": "yandex", "term": "crm"}
    assert (event["amount_minor"], event["currency"]) == (500_000_00, "RUB")
    assert event["complexity"] == lead["complexity"] == "complex"
    assert "2345678" not in str(event)


async def test_a_mobile_number_has_a_country_and_no_region(contacts: Contacts) -> None:
    await contacts.made("/v1/leads", {"phone": "+90 532 123 45 67"})
    await contacts.made("/v1/leads", {"email": "p@example.com"})

    turkish, none = await contacts.said("lead.received")
    assert (turkish["phone_country"], turkish["phone_region"]) == ("TR", None)
    assert (none["phone_country"], none["phone_region"]) == (None, None)


async def test_an_unknown_person_becomes_a_card_once(contacts: Contacts) -> None:
    body = {"name": "Пётр", "phone": "89123456789", "email": "p@example.com"}
    answers = await asyncio.gather(*(contacts.post("/v1/leads", body) for _ in range(4)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["client_id"] for answer in answers}) == 1
    assert sum(answer.json()["is_returning"] for answer in answers) == 3
    assert await contacts.count("clients") == len(await contacts.said("client.created")) == 1
    assert await contacts.count("leads") == 4


async def test_a_repeated_command_brings_one_lead(contacts: Contacts) -> None:
    body = {"email": "p@example.com"}
    first = await contacts.post("/v1/leads", body, **{"Idempotency-Key": "l"})
    again = await contacts.post("/v1/leads", body, **{"Idempotency-Key": "l"})

    assert first.content == again.content
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert await contacts.count("leads") == 1


async def test_who_was_put_away_and_asks_again_is_in_use_again(contacts: Contacts) -> None:
    anna = await contacts.add_client(email="a@example.com")
    await contacts.made(
        f"/v1/clients/{anna['id']}/archive", {"reason": "молчит"}, **{"If-Match": "*"}
    )
    await contacts.made("/v1/leads", {"email": "A@example.com"})

    card = (await contacts.http.get(f"/v1/clients/{anna['id']}")).json()
    assert (card["archived_at"], card["version"]) == (None, 3)
    assert [event["event"] for event in await contacts.said()] == [
        *("client.created", "client.archived", "client.restored", "lead.received")
    ]


async def test_a_form_is_kept_and_then_becomes_a_lead_once(contacts: Contacts) -> None:
    form = {
        "Имя": "Анна",
        "Телефон": "8 912 345-67-89",
        "E-mail": "anna@example.com",
        "Комментарий": "Перезвоните",
        "utm_source": "yandex",
        "Размер": 42,
    }
    first = await submit(contacts, form, identity="msg_1")
    again = await submit(contacts, form, identity="msg_1")
    assert (first.status_code, first.json()) == (202, {"received": True})
    assert again.status_code == 200
    assert await contacts.count("leads") == 0

    await asyncio.gather(work(contacts.database), work(contacts.database))
    late = await submit(contacts, form, identity="msg_1")
    await work(contacts.database)

    assert late.status_code == 200
    (lead,) = (await contacts.http.get("/v1/leads")).json()["items"]
    assert (lead["name"], lead["phones"], lead["email"]) == (
        *("Анна", ["+79123456789"], "anna@example.com"),
    )
    assert lead["note"] == "Перезвоните\nРазмер: 42"
    assert (lead["utm"], lead["channel"]) == ({"utm_source": "yandex"}, "form")
    (request,) = (await contacts.http.get("/v1/webhooks/requests?state=done")).json()["items"]
    assert request["outcome"] == f"lead: {lead['id']}"


async def test_a_crash_between_keeping_and_making_leaves_the_form_due(contacts: Contacts) -> None:
    await submit(contacts, {"phone": "89123456789"})
    with pytest.raises(RuntimeError, match="power cut"):
        async with contacts.database.transaction() as tx:
            await take_in_forms(tx, datetime.now(UTC) + timedelta(seconds=1))
            raise RuntimeError("power cut")
    assert await contacts.count("leads") == 0

    await work(contacts.database)
    assert await contacts.count("leads") == 1


async def test_what_cannot_be_read_is_kept_in_the_note(contacts: Contacts) -> None:
    await submit(contacts, b"name=Anna&phone=after+six&tel=89123456789%2C+89033456789&x=1")
    await submit(contacts, {"phone": "0000000000", "email": "not an address", "name": "Б" * 300})
    await work(contacts.database)

    second, first = (await contacts.http.get("/v1/leads")).json()["items"]
    assert first["phones"] == ["+79123456789", "+79033456789"]
    assert first["note"] == "phone: after six\nx: 1"
    assert (second["phones"], second["email"], second["name"]) == ([], None, None)
    assert second["note"].startswith("phone: 0000000000\nemail: not an address\nname: ББ")


DEEP = b'{"phone": "89123456789", "x": ' + b"[" * 500 + b"]" * 500 + b"}"


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b'{"a": "b"}', b"7", b'{"name": "x"}', b"<xml/>", DEEP]
)
async def test_what_is_no_form_is_shown_and_can_be_tried_again(
    contacts: Contacts, body: bytes
) -> None:
    assert (await submit(contacts, body)).status_code == 202
    await work(contacts.database)

    (request,) = (await contacts.http.get("/v1/webhooks/requests?state=refused")).json()["items"]
    assert request["outcome"].startswith(("refused: it is ", "refused: neither "))
    again = await contacts.post(f"/v1/webhooks/requests/{request['id']}/replay", {})
    early = await contacts.post(f"/v1/webhooks/requests/{request['id']}/replay", {})
    await work(contacts.database)

    assert (again.status_code, again.json()["state"]) == (202, "waiting")
    assert (early.status_code, early.json()["code"]) == (409, "webhook-request-not-refused")
    (request,) = (await contacts.http.get("/v1/webhooks/requests?state=refused")).json()["items"]
    assert request["attempts"] == 2
    assert await contacts.count("leads") == 0


async def test_forged_old_and_unknown_webhooks_are_refused(contacts: Contacts) -> None:
    form = {"phone": "89123456789"}
    spoilt = await submit(contacts, form, spoil=b" ")
    old = await submit(contacts, form, ago=400)
    bare = await contacts.http.post(f"/v1/webhooks/forms/{FORM}", json=form)
    unknown = await contacts.http.post("/v1/webhooks/forms/nobody", json=form)

    refused = {(answer.status_code, answer.json()["code"]) for answer in (spoilt, old, bare)}
    assert refused == {(401, "signature-invalid")}
    assert (unknown.status_code, unknown.json()["code"]) == (404, "webhook-source-unknown")
    assert await contacts.count("webhook_requests") == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "x"}, "lead-unreachable"),
        ({"phone": "0000000000"}, "phone-impossible"),
        ({"phone": "позвоните"}, "phone-unreadable"),
        ({"email": "a@"}, "email-invalid"),
        ({"phone": "89123456789", "channel": "pigeon"}, "literal-error"),
        ({"phone": 89123456789}, "string-type"),
    ],
)
async def test_a_bad_lead_is_told_why(contacts: Contacts, body: dict[str, Any], code: str) -> None:
    answer = await contacts.post("/v1/leads", body)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == code
    assert await contacts.count("clients") == 0


def told(kind: Any, lead: Any, epoch: int, manager: UUID | None = None) -> Any:
    return kind(
        lead_id=lead["id"],
        client_id=lead["client_id"],
        manager_id=manager or new_id(),
        epoch=epoch,
        claim_until=NOON,
        reason="turn",
        is_returning=False,
        occurred_at=NOON,
    )


async def state_of(contacts: Contacts, lead: Any) -> tuple[str, int, str | None]:
    shown = (await contacts.http.get(f"/v1/leads/{lead['id']}")).json()
    return shown["state"], shown["epoch"], shown["manager_id"]


async def test_a_lead_shows_where_routing_has_brought_it(contacts: Contacts) -> None:
    lead = await contacts.made("/v1/leads", {"email": "p@example.com"})
    first, second = new_id(), new_id()
    assigned, lapsed = told(LeadAssigned, lead, 1, first), told(LeadUnclaimed, lead, 1, first)
    again = told(LeadAssigned, lead, 2, second)
    claimed = told(LeadClaimed, lead, 2, second)

    await contacts.hears(assigned)
    assert await state_of(contacts, lead) == ("assigned", 1, str(first))
    await contacts.hears(lapsed, again, claimed)
    assert await state_of(contacts, lead) == ("claimed", 2, str(second))
    await contacts.hears(
        assigned, claimed, told(LeadUnclaimed, lead, 1), told(LeadClaimed, lead, 1)
    )
    assert await state_of(contacts, lead) == ("claimed", 2, str(second))
    await contacts.hears(told(LeadReleased, lead, 2, second), told(LeadEscalated, lead, 2))
    assert await state_of(contacts, lead) == ("waiting", 2, None)
    await contacts.hears(told(LeadConverted, lead, 3, second), told(LeadUnclaimed, lead, 3, first))
    assert await state_of(contacts, lead) == ("converted", 3, str(second))


async def test_a_closed_lead_is_shown_closed(contacts: Contacts) -> None:
    lead = await contacts.made("/v1/leads", {"email": "p@example.com"})
    await contacts.hears(told(LeadClosed, lead, 0))
    assert (await state_of(contacts, lead))[0] == "closed"


async def test_who_claims_a_lead_has_the_client_if_nobody_had(contacts: Contacts) -> None:
    free = await contacts.made("/v1/leads", {"email": "p@example.com"})
    owner, claimer = new_id(), new_id()
    await contacts.add_client(email="own@example.com", owner_id=str(owner))
    owned = await contacts.made("/v1/leads", {"email": "own@example.com"})
    twin = await contacts.made("/v1/leads", {"email": "p@example.com"})

    claim = told(LeadClaimed, free, 1, claimer)
    await contacts.hears(
        claim, told(LeadClaimed, owned, 1, claimer), told(LeadClaimed, twin, 1, new_id())
    )
    await contacts.hears(claim)

    (event,) = await contacts.said("client.changed")
    assert event["card"]["owner_id"] == str(claimer)
    assert (event["changed"], event["version"]) == (["owner_id"], 2)
    kept = (await contacts.http.get(f"/v1/clients/{owned['client_id']}")).json()
    assert (kept["owner_id"], kept["version"]) == (str(owner), 1)


async def test_a_lead_that_nobody_knows_is_passed_over(contacts: Contacts) -> None:
    stranger = {"id": str(new_id()), "client_id": str(new_id())}
    await contacts.hears(told(LeadAssigned, stranger, 1), told(LeadClaimed, stranger, 1))

    assert await contacts.count("dead_letters") == 0
    assert await contacts.said() == []


async def test_a_manager_sees_their_own_leads_and_those_that_wait(contacts: Contacts) -> None:
    me = new_id()
    mine, others = [
        await contacts.made("/v1/leads", {"email": f"{name}@example.com"}) for name in ("a", "b")
    ]
    await contacts.hears(told(LeadAssigned, mine, 1, me), told(LeadAssigned, others, 1))

    async def listed(query: str, **headers: str) -> list[str]:
        answer = await contacts.http.get(f"/v1/leads{query}", headers=headers)
        return [lead["id"] for lead in answer.json()["items"]]

    assert await listed("", **contacts.manager(me)) == [mine["id"]]
    assert await listed("", **contacts.bearer("manager")) == []
    assert await listed("?state=waiting", **contacts.manager(me)) == []
    path = f"/v1/leads/{others['id']}"
    foreign = await contacts.http.get(path, headers=contacts.manager(me))
    assert (foreign.status_code, foreign.json()["code"]) == (403, "client-not-yours")

    await contacts.hears(told(LeadEscalated, others, 1))
    assert await listed("?state=waiting", **contacts.manager(me)) == [others["id"]]
