"""Whatever comes in, the answer is a clear problem with a stable code, never a 500."""

import asyncio
import time
from typing import Any

import pytest

from libs.shared.ids import new_id
from tests.contacts.conftest import Contacts

BAD_CARDS: tuple[tuple[Any, str, str], ...] = (
    ({}, "/name", "name-missing"),
    ({"name": ""}, "/name", "string-too-short"),
    ({"name": 7}, "/name", "string-type"),
    ({"name": "x" * 201}, "/name", "string-too-long"),
    ({"name": "x\0"}, "/name", "nul-character"),
    ({"name": "x", "surname": "y"}, "/surname", "extra-forbidden"),
    ({"name": "x", "kind": "robot"}, "/kind", "literal-error"),
    ({"name": "x", "short_name": "y"}, "/short_name", "name-not-expected"),
    ({"kind": "legal_entity", "full_name": "y"}, "/short_name", "name-missing"),
    ({"kind": "legal_entity", "name": "y"}, "/name", "name-not-expected"),
    ({"name": "x", "phones": "89123456789"}, "/phones", "list-type"),
    ({"name": "x", "phones": [89123456789]}, "/phones/0", "string-type"),
    ({"name": "x", "phones": ["89123456789", "много"]}, "/phones/1", "phone-unreadable"),
    ({"name": "x", "phones": ["89123456789", "9123456789.0"]}, "/phones/1", "phone-repeated"),
    ({"name": "x", "phones": ["0000000000"]}, "/phones/0", "phone-impossible"),
    ({"name": "x", "phones": ["123"]}, "/phones/0", "phone-too-short"),
    ({"name": "x", "email": "anna"}, "/email", "email-invalid"),
    ({"name": "x", "email": "a b@example.com"}, "/email", "email-invalid"),
    ({"name": "x", "birthday": "1990-02-30"}, "/birthday", "date-from-datetime-parsing"),
    ({"name": "x", "birthday": 0}, "/birthday", "value-error"),
    ({"name": "x", "birthday": "2190-01-01"}, "/birthday", "birthday-in-future"),
    ({"name": "x", "owner_id": "me"}, "/owner_id", "uuid-parsing"),
    ({"name": "x", "messengers": {"icq": "1"}}, "/messengers/icq/[key]", "literal-error"),
    ({"name": "x", "address": {"planet": "Mars"}}, "/address/planet", "extra-forbidden"),
    ({"name": "x", "tags": ["t"] * 101}, "/tags", "too-long"),
    ([1], "", "model-type"),
)


async def test_a_bad_card_is_told_where_and_why(contacts: Contacts) -> None:
    for body, pointer, code in BAD_CARDS:
        answer = await contacts.post("/v1/clients", body)
        assert answer.status_code == 422, (body, answer.text)
        error = answer.json()["errors"][0]
        assert (error["pointer"], error["code"]) == (pointer, code), body
    assert await contacts.count("clients") == await contacts.count("outbox") == 0


async def test_bodies_that_are_no_good_at_all_are_refused(contacts: Contacts) -> None:
    json_type = {"content-type": "application/json"}
    huge = b'{"name": "' + b"x" * 10_000_000 + b'"}'
    cases = (
        (b"{", json_type, 400, "json-malformed"),
        (b"", json_type, 400, "json-malformed"),
        (b'{"name": NaN}', json_type, 400, "json-malformed"),
        (b"\xff", json_type, 400, "json-malformed"),
        (b'{"name": "x"}', {"content-type": "text/plain"}, 415, "content-type-unsupported"),
        (huge, json_type, 413, "body-too-large"),
        (b"[" * 500 + b"]" * 500, json_type, 422, "too-deep"),
        (b'{"name": 123456789012345678901234567890}', json_type, 422, None),
    )
    for path in ("/v1/clients", "/v1/clients/batch", "/v1/deals/batch", "/v1/leads"):
        for raw, headers, status, code in cases:
            answer = await contacts.http.post(path, content=raw, headers=headers)
            told = answer.json()
            assert answer.status_code == status, (path, raw[:40], answer.text)
            assert code in (None, told["code"], told.get("errors", [{}])[0].get("code"))


async def test_a_batch_of_the_wrong_size_or_shape_is_refused(contacts: Contacts) -> None:
    item = {"name": "x"}
    cases = (
        ({"source": "s", "items": []}, "/items", "too-short"),
        ({"source": "s", "items": [item] * 1001}, "/items", "too-long"),
        ({"source": "s", "items": {}}, "/items", "list-type"),
        ({"items": [item]}, "/source", "missing"),
        ({"source": "s", "items": [item], "fast": True}, "/fast", "extra-forbidden"),
    )
    for body, pointer, code in cases:
        answer = await contacts.post("/v1/clients/batch", body)
        error = answer.json()["errors"][0]
        assert (answer.status_code, error["pointer"], error["code"]) == (422, pointer, code)
    answer = await contacts.made("/v1/clients/batch", {"source": "s", "items": [1, None, [], item]})
    assert [one["outcome"] for one in answer["items"]] == ["refused"] * 3 + ["created"]


async def test_unknown_ids_are_not_found(contacts: Contacts) -> None:
    nobody = str(new_id())
    for path, code in (
        (f"/v1/clients/{nobody}", "client-not-found"),
        (f"/v1/clients/{nobody}/interactions", "client-not-found"),
        (f"/v1/clients/{nobody}/deals", "client-not-found"),
        (f"/v1/deals/{nobody}", "deal-not-found"),
        (f"/v1/interactions/{nobody}", "interaction-not-found"),
        (f"/v1/leads/{nobody}", "lead-not-found"),
    ):
        answer = await contacts.http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, code)
    for path in ("/v1/clients/7", "/v1/deals/x", "/v1/webhooks/requests/x/replay"):
        answer = await contacts.http.request("POST" if "replay" in path else "GET", path, json={})
        assert (answer.status_code, answer.json()["code"]) == (422, "request-invalid")
    for number, status in ((2**63, 422), (1, 404)):
        answer = await contacts.post(f"/v1/webhooks/requests/{number}/replay", {})
        assert answer.status_code == status


ALLOWED: dict[str, tuple[str, ...]] = {
    "GET /v1/clients": ("manager", "supervisor", "analyst", "marketer", "integration", "admin"),
    "POST /v1/clients": ("manager", "supervisor", "integration", "admin"),
    "POST /v1/clients/batch": ("supervisor", "integration", "admin"),
    "POST /v1/deals/batch": ("supervisor", "integration", "admin"),
    "POST /v1/leads": ("manager", "supervisor", "integration", "admin"),
    "GET /v1/leads": ("manager", "supervisor", "analyst", "marketer", "integration", "admin"),
    "GET /v1/webhooks/requests": ("supervisor", "admin"),
    "GET /v1/dead-letters": ("supervisor", "admin"),
    "GET /v1/clients/{client}/interactions": (
        *("manager", "supervisor", "analyst", "marketer", "support", "integration", "admin"),
    ),
    "GET /v1/clients/{client}": (
        *("manager", "supervisor", "analyst", "marketer", "integration", "admin"),
    ),
}
ROLES = ("manager", "supervisor", "analyst", "marketer", "support", "integration", "admin", "boss")


async def test_each_door_lets_in_whom_it_should(contacts: Contacts) -> None:
    anna = await contacts.add_client()
    for door, allowed in ALLOWED.items():
        method, path = door.format(client=anna["id"]).split()
        for role in ROLES:
            answer = await contacts.http.request(
                method, path, json={} if method == "POST" else None, headers=contacts.bearer(role)
            )
            let_in = answer.status_code in (200, 422)
            assert let_in == (role in allowed), (door, role, answer.text)
            assert let_in or (answer.status_code, answer.json()["code"]) == (403, "role-missing")


async def test_tokens_must_be_there_in_time_and_ours(contacts: Contacts) -> None:
    now = int(time.time())
    for headers, code in (
        ({"Authorization": ""}, "token-missing"),
        ({"Authorization": "Bearer nonsense"}, "token-invalid"),
        (contacts.bearer("admin", exp=now - 100), "token-expired"),
        (contacts.bearer("admin", aud="others"), "token-invalid"),
    ):
        answer = await contacts.http.get("/v1/clients", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, code)


@pytest.mark.parametrize("path", ["/v1/clients/batch", "/v1/deals/batch", "/v1/interactions/batch"])
async def test_a_key_that_was_used_for_another_batch_is_refused(
    contacts: Contacts, path: str
) -> None:
    key = {"Idempotency-Key": "k"}
    first = await contacts.post(path, {"source": "s", "items": [{}]}, **key)
    other = await contacts.post(path, {"source": "s", "items": [{}, {}]}, **key)
    again = await contacts.post(path, {"source": "s", "items": [{}]}, **key)

    assert first.status_code == again.status_code == 200
    assert (first.content, again.headers["Idempotency-Replayed"]) == (again.content, "true")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


async def test_two_batches_with_the_same_cards_in_other_orders_do_not_block_each_other(
    contacts: Contacts,
) -> None:
    items = [{"external_id": str(n), "name": f"К {n}"} for n in range(200)]
    answers = await asyncio.gather(
        *(
            contacts.post("/v1/clients/batch", {"source": "s", "items": items[:: 1 - 2 * (n % 2)]})
            for n in range(4)
        )
    )

    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.json()["created"] for answer in answers) == 200
    assert await contacts.count("clients") == len(await contacts.said("client.created")) == 200


@pytest.mark.parametrize(
    ("policy", "body"),
    [
        ("phones", {"default_region": "ZZ"}),  # every number without a country would be refused
        ("forms", {"phone_fields": ["phone"] * 101}),
        ("refusals", {"reasons": []}),
        ("pipelines", {"pipelines": []}),
    ],
)
async def test_a_policy_nobody_could_work_with_is_refused(
    contacts: Contacts, policy: str, body: dict[str, Any]
) -> None:
    answer = await contacts.http.put(
        f"/v1/policies/{policy}", json={"body": body}, headers={"If-Match": '"0"'}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "request-invalid")
    assert answer.json()["errors"][0]["pointer"].startswith("/body/")
