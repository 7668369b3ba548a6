"""Whatever is sent, the answer is a problem that says what to do, and never a 500."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.shared.ids import new_id
from tests.conftest import PLUMBING, FreshDatabase
from tests.shared.demo_api import Demo, running
from tests.shared.issuer import Issuer
from tests.shared.line import Line

JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def demo(fresh_database: FreshDatabase) -> AsyncIterator[Demo]:
    async with (
        Issuer().serving() as issuer,
        running(await fresh_database(PLUMBING), issuer, max_body_bytes=100_000) as made,
    ):
        yield made


def check(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["type"].endswith(f"/{code}")
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == answer.request.url.path
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


async def test_a_broken_rule_is_told_with_its_members(demo: Demo) -> None:
    await demo.http.post("/v1/notes", json={"title": "milk"})
    problem = check(await demo.http.post("/v1/notes", json={"title": "milk"}), 409, "note-taken")

    assert problem["title_length"] == 4
    assert problem["detail"] == "There is a note with this title."


@pytest.mark.parametrize(
    ("accepted", "russian"),
    [
        ("ru", True),
        ("ru-RU,ru;q=0.9,en;q=0.8", True),
        ("en-GB,en;q=0.9,ru;q=0.5", False),
        ("en;q=0.3, ru;q=0.7", True),
        ("de", False),
        ("ru;q=zero", False),
        ("*", False),
    ],
)
async def test_the_detail_is_in_the_callers_language(
    demo: Demo, accepted: str, russian: bool
) -> None:
    answer = await demo.http.get(f"/v1/notes/{new_id()}", headers={"Accept-Language": accepted})

    problem = check(answer, 404, "note-unknown")

    assert problem["detail"] == ("Нет такой заметки." if russian else problem["title"])


def nested(levels: int) -> bytes:
    return b'{"title": "a", "extra": ' + b"[" * levels + b"]" * levels + b"}"


BROKEN_BODIES: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 422, "request-invalid"),
    "not JSON": (b"{", 400, "json-malformed"),
    "two values": (b"{} {}", 400, "json-malformed"),
    "not UTF-8": (b'{"title": "\xff\xfe"}', 400, "json-malformed"),
    "NaN": (b'{"title": "a", "extra": NaN}', 400, "json-malformed"),
    "Infinity": (b'{"title": "a", "extra": -Infinity}', 400, "json-malformed"),
    "1e999": (b'{"title": "a", "count": 1e999}', 400, "json-malformed"),
    "half a surrogate pair": (b'{"title": "\\ud800"}', 400, "json-malformed"),
    "raw NUL": (b'{"title": "a\x00b"}', 400, "json-malformed"),
    "NUL": (b'{"title": "a\\u0000b"}', 422, "request-invalid"),
    "NUL in a key": (b'{"title": "a", "extra": {"\\u0000": 1}}', 422, "request-invalid"),
    "beyond 64 bit": (b'{"title": "a", "count": 9223372036854775808}', 422, "request-invalid"),
    "far below": (b'{"title": "a", "extra": [-9323372036854775809]}', 422, "request-invalid"),
    "thousands of digits": (
        b'{"title": "a", "count": ' + b"9" * 5000 + b"}",
        400,
        "json-malformed",
    ),
    "deep": (b'{"title": "a", "extra": ' + b"[" * 900 + b"]" * 900 + b"}", 422, "request-invalid"),
    "deeper": (
        b'{"title": "a", "extra": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        400,
        "json-malformed",
    ),
    "a list": (b"[]", 422, "request-invalid"),
    "a text": (b'"title"', 422, "request-invalid"),
    "null": (b"null", 422, "request-invalid"),
    "unknown field": (b'{"title": "a", "titel": "b"}', 422, "request-invalid"),
    "wrong type": (b'{"title": 5}', 422, "request-invalid"),
    "only spaces": (b'{"title": "   "}', 422, "request-invalid"),
    "too long": (b'{"title": "' + b"a" * 201 + b'"}', 422, "request-invalid"),
    "a float amount": (b'{"title": "a", "amount_minor": 1.5}', 422, "request-invalid"),
    "an amount in a text": (b'{"title": "a", "amount_minor": "12"}', 422, "request-invalid"),
    "a true amount": (b'{"title": "a", "amount_minor": true}', 422, "request-invalid"),
    "impossible date": (b'{"title": "a", "at": "2026-02-30T10:00:00Z"}', 422, "request-invalid"),
    "no time zone": (b'{"title": "a", "at": "2026-02-03T10:00:00"}', 422, "request-invalid"),
    "year 1": (b'{"title": "a", "at": "0001-01-01T00:00:00+14:00"}', 422, "request-invalid"),
    "year 9999": (b'{"title": "a", "at": "9999-12-31T23:59:59-14:00"}', 422, "request-invalid"),
    "too many tags": (orjson.dumps({"title": "a", "tags": ["b"] * 21}), 422, "request-invalid"),
}


@pytest.mark.parametrize("name", BROKEN_BODIES)
async def test_a_broken_body_gets_a_clear_problem(demo: Demo, name: str) -> None:
    body, status, code = BROKEN_BODIES[name]

    check(await demo.http.post("/v1/notes", content=body, headers=JSON), status, code)

    assert (await demo.http.get("/v1/notes/count")).json() == 0


async def test_errors_point_to_the_place_and_do_not_repeat_the_value(demo: Demo) -> None:
    secret = "канарейка-79165550173"
    body = {"title": 7, "tags": ["a", ""], "amount_minor": secret, "at": secret, "a/b~c": secret}
    answer = await demo.http.post("/v1/notes", json=body)

    problem = check(answer, 422, "request-invalid")

    assert {(one["pointer"], one["in"], one["code"]) for one in problem["errors"]} == {
        ("/title", "body", "string-type"),
        ("/tags/1", "body", "string-too-short"),
        ("/amount_minor", "body", "int-type"),
        ("/at", "body", "value-error"),
        ("/a~1b~0c", "body", "extra-forbidden"),
    }
    assert all(one["detail"] and one["ru"] for one in problem["errors"])
    assert "канарейка" not in answer.text
    assert "5550173" not in answer.text


async def test_errors_are_counted_but_not_listed_without_end(demo: Demo) -> None:
    many = {f"field_{number}": 1 for number in range(300)}
    problem = check(await demo.http.post("/v1/notes", json=many), 422, "request-invalid")

    assert (problem["errors_total"], len(problem["errors"])) == (301, 50)


@pytest.mark.parametrize(
    ("path", "pointer", "where"),
    [
        ("/v1/notes?limit=0", "/limit", "query"),
        ("/v1/notes?limit=501", "/limit", "query"),
        ("/v1/notes?limit=many", "/limit", "query"),
        ("/v1/notes/not-a-uuid", "/note_id", "path"),
    ],
)
async def test_parameters_are_pointed_to_as_well(
    demo: Demo, path: str, pointer: str, where: str
) -> None:
    problem = check(await demo.http.get(path), 422, "request-invalid")

    assert (problem["errors"][0]["pointer"], problem["errors"][0]["in"]) == (pointer, where)


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "x"]
)
async def test_only_json_is_taken(demo: Demo, media_type: str) -> None:
    answer = await demo.http.post(
        "/v1/notes", content=b'{"title": "a"}', headers={"Content-Type": media_type}
    )

    check(answer, 415, "content-type-unsupported")


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "application/x+json"])
async def test_json_by_another_name_is_taken(demo: Demo, media_type: str) -> None:
    answer = await demo.http.post(
        "/v1/notes", content=b'{"title": "a"}', headers={"Content-Type": media_type}
    )

    assert answer.status_code == 201


async def test_an_unknown_address_and_a_wrong_method(demo: Demo) -> None:
    check(await demo.http.get("/v1/nothing"), 404, "route-unknown")
    wrong = await demo.http.delete("/v1/notes")

    check(wrong, 405, "method-not-allowed")
    assert wrong.headers["Allow"] == "GET, POST"


@pytest.mark.parametrize("path", ["/v1/notes?starts=%00", "/v1/notes/by/%00/at/2026-01-01"])
async def test_a_nul_in_the_address_is_refused(demo: Demo, path: str) -> None:
    assert (await demo.http.get(path)).json()["code"] == "url-malformed"


async def test_a_large_body_is_refused_before_it_is_read(demo: Demo) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 10_000
            yield b"x" * 10_000

    declared = await demo.http.post("/v1/notes", content=b"x" * 100_001, headers=JSON)
    streamed = await demo.http.post("/v1/notes", content=endless(), headers=JSON)

    assert check(declared, 413, "body-too-large")["max_bytes"] == 100_000
    assert check(streamed, 413, "body-too-large")["max_bytes"] == 100_000
    assert sent < 150_000


async def test_what_the_database_refuses_is_no_500(demo: Demo) -> None:
    await demo.http.post("/v1/notes/careless", json={"title": "a", "count": 1})

    again = await demo.http.post("/v1/notes/careless", json={"title": "a"})

    check(again, 409, "write-conflict")


async def test_an_unforeseen_error_tells_nothing_and_is_logged(
    demo: Demo, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = await demo.http.post("/v1/notes/then-fail", json={"title": "milk"})

    problem = check(answer, 500, "internal-error")
    lines = [orjson.loads(line) for line in capsys.readouterr().err.splitlines()]
    (failed,) = [line for line in lines if line["event"] == "request_failed"]

    assert "secret" not in answer.text
    assert "RuntimeError" in failed["exception"]
    assert failed["correlation_id"] == problem["request_id"]
    assert (await demo.http.get("/v1/notes/count")).json() == 0


async def test_an_outage_of_the_database_is_a_503(
    fresh_database: FreshDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        Issuer().serving() as issuer,
        Line.to(await fresh_database(PLUMBING)) as (line, url),
        running(url, issuer) as demo,
    ):
        await demo.http.post("/v1/notes", json={"title": "a"})
        await line.cut()
        answer = await demo.http.get("/v1/notes/count")
        fast = await demo.http.post("/v1/notes/fast", json={"title": "b"})
        ready = await demo.http.get("/readyz")
        alive = await demo.http.get("/livez")
        await line.mend()
        again = await demo.http.get("/v1/notes/count")
        ready_again = await demo.http.get("/readyz")

    check(answer, 503, "temporarily-unavailable")
    check(fast, 503, "temporarily-unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert (ready.status_code, ready.json()["checks"]) == (503, {"database": "failed"})
    assert alive.status_code == 200
    assert again.json() == 1
    assert ready_again.json() == {"status": "ready", "checks": {"database": "ok"}}
    assert "request_failed" in capsys.readouterr().err


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
_FIELDS = ("title", "amount_minor", "count", "at", "tags", "extra")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.dictionaries(st.sampled_from(_FIELDS), _ANYTHING) | _ANYTHING)
async def test_no_json_at_all_makes_a_500(demo: Demo, body: Any) -> None:
    answer = await demo.http.post("/v1/notes", content=json.dumps(body), headers=JSON)

    assert answer.status_code in (201, 400, 409, 422)
