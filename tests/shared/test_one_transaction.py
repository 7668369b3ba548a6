"""One request, one transaction; sent again, one effect and the same answer."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy import text

from libs.shared import idempotency
from tests.conftest import PLUMBING, FreshDatabase
from tests.shared.demo_api import Demo, running
from tests.shared.issuer import Issuer


@pytest.fixture
async def demo(fresh_database: FreshDatabase) -> AsyncIterator[Demo]:
    async with (
        Issuer().serving() as issuer,
        running(await fresh_database(PLUMBING), issuer) as made,
    ):
        yield made


def key(value: str) -> dict[str, str]:
    return {"Idempotency-Key": value}


async def count(demo: Demo, table: str = "notes") -> int:
    found: int = await demo.database.pool.fetchval(f"SELECT count(*) FROM {table}")
    return found


async def test_what_was_answered_is_committed(demo: Demo) -> None:
    made = await demo.http.post("/v1/notes", json={"title": "milk"})

    # Another connection sees it: the commit came before the answer.
    assert await demo.database.pool.fetchval("SELECT id FROM notes") == UUID(made.json()["id"])
    assert (made.headers["ETag"], made.headers["Location"]) == (
        '"1"',
        f"/v1/notes/{made.json()['id']}",
    )


async def test_an_error_rolls_back_and_frees_the_connection(demo: Demo) -> None:
    for _ in range(20):  # more often than the pool has connections
        assert (await demo.http.post("/v1/notes/then-fail", json={"title": "a"})).status_code == 500

    assert await count(demo) == 0


async def test_a_write_rings_and_a_read_does_not(demo: Demo) -> None:
    bell = demo.database.wake.bell()
    while await bell.wait(0.3):  # the ring of having connected
        pass
    await demo.http.get("/v1/notes/count")
    after_read = await bell.wait(0)
    await demo.http.post("/v1/notes", json={"title": "milk"})

    assert (after_read, await bell.wait(0)) == (False, True)


@pytest.mark.parametrize("path", ["/v1/notes", "/v1/notes/fast"])
async def test_the_same_command_twice_has_one_effect_and_one_answer(demo: Demo, path: str) -> None:
    first = await demo.http.post(path, json={"title": "milk"}, headers=key("k-1"))
    again = await demo.http.post(path, json={"title": "milk"}, headers=key("k-1"))

    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert first.headers.get("ETag") == again.headers.get("ETag")
    assert first.headers.get("Location") == again.headers.get("Location")
    assert first.headers["Content-Type"] == again.headers["Content-Type"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert await count(demo) == 1


@pytest.mark.parametrize("path", ["/v1/notes", "/v1/notes/fast"])
async def test_many_at_once_have_one_effect(demo: Demo, path: str) -> None:
    answers = await asyncio.gather(
        *(demo.http.post(path, json={"title": "milk"}, headers=key("k-1")) for _ in range(20))
    )

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 19
    assert await count(demo) == 1


@pytest.mark.parametrize("path", ["/v1/notes", "/v1/notes/fast"])
async def test_a_key_belongs_to_one_request(demo: Demo, path: str) -> None:
    await demo.http.post(path, json={"title": "milk"}, headers=key("k-1"))
    other = await demo.http.post(path, json={"title": "bread"}, headers=key("k-1"))

    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert await count(demo) == 1


async def test_a_key_belongs_to_one_caller_and_one_address(demo: Demo) -> None:
    answers = [
        await demo.http.post("/v1/notes", json={"title": "a"}, headers=key("k-1")),
        await demo.http.post("/v1/notes/careless", json={"title": "b"}, headers=key("k-1")),
        await demo.http.post(
            "/v1/notes", json={"title": "c"}, headers=key("k-1") | demo.bearer(sub="another")
        ),
    ]

    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert await count(demo) == 3


async def test_a_replay_needs_the_role_too(demo: Demo) -> None:
    await demo.http.post("/v1/notes", json={"title": "a"}, headers=key("k-1"))
    answer = await demo.http.post(
        "/v1/notes", json={"title": "a"}, headers=key("k-1") | demo.bearer("support")
    )

    assert (answer.status_code, answer.json()["code"]) == (403, "role-missing")


async def test_errors_are_not_remembered(demo: Demo) -> None:
    broken = await demo.http.post("/v1/notes/then-fail", json={"title": "a"}, headers=key("k-1"))
    invalid = await demo.http.post("/v1/notes", json={"titel": "a"}, headers=key("k-1"))
    mended = await demo.http.post("/v1/notes", json={"title": "a"}, headers=key("k-1"))

    assert (broken.status_code, invalid.status_code, mended.status_code) == (500, 422, 201)
    assert await count(demo, "idempotency_keys") == 1


async def test_a_repetition_waits_for_the_first_and_gets_its_answer(demo: Demo) -> None:
    async with demo.database.transaction() as first:
        await first.execute(
            "INSERT INTO idempotency_keys (principal, route, key, fingerprint, status, body)"
            " VALUES ('user-1', 'POST /v1/notes', 'k-1', $1, 201, 'the first answer')",
            idempotency.fingerprint(b"", b'{"title":"a"}'),
        )
        repetition = asyncio.create_task(
            demo.http.post(
                "/v1/notes",
                content=b'{"title":"a"}',
                headers=key("k-1") | {"Content-Type": "application/json"},
            )
        )
        await _somebody_waits(demo)
        assert not repetition.done()

    answer = await repetition
    assert (answer.status_code, answer.text) == (201, "the first answer")


async def test_a_repetition_does_not_wait_for_ever(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = str(idempotency._CLAIM_ORM).replace("'5s'", "'100ms'")
    monkeypatch.setattr(idempotency, "_CLAIM_ORM", text(quick))
    async with demo.database.transaction() as first:
        await first.execute(
            "INSERT INTO idempotency_keys (principal, route, key, fingerprint)"
            " VALUES ('user-1', 'POST /v1/notes', 'k-1', '')"
        )
        answer = await demo.http.post("/v1/notes", json={"title": "a"}, headers=key("k-1"))

    assert (answer.status_code, answer.json()["code"]) == (409, "request-in-flight")


async def test_a_first_request_that_failed_leaves_the_key_to_the_repetition(demo: Demo) -> None:
    connection = await demo.database.pool.acquire()
    first = connection.transaction()
    await first.start()
    await connection.execute(
        "INSERT INTO idempotency_keys (principal, route, key, fingerprint)"
        " VALUES ('user-1', 'POST /v1/notes', 'k-1', '')"
    )
    repetition = asyncio.create_task(
        demo.http.post("/v1/notes", json={"title": "a"}, headers=key("k-1"))
    )
    await _somebody_waits(demo)
    await first.rollback()
    await demo.database.pool.release(connection)

    answer = await repetition
    assert answer.status_code == 201
    assert "Idempotency-Replayed" not in answer.headers


async def _somebody_waits(demo: Demo) -> None:
    async with asyncio.timeout(5):
        while not await demo.database.pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock'"
        ):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("bad", ["", "  ", "a" * 256, '""', "a\tb"])
async def test_a_malformed_key_is_refused(demo: Demo, bad: str) -> None:
    answer = await demo.http.post("/v1/notes", json={"title": "a"}, headers=key(bad))

    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency-key-malformed")


async def test_quotes_around_a_key_do_not_count(demo: Demo) -> None:
    first = await demo.http.post("/v1/notes", json={"title": "a"}, headers=key('"k-1"'))
    again = await demo.http.post("/v1/notes", json={"title": "a"}, headers=key("k-1"))

    assert again.content == first.content


async def test_some_commands_demand_a_key(demo: Demo) -> None:
    without = await demo.http.post("/v1/notes/careful")
    with_key = await demo.http.post("/v1/notes/careful", headers=key("k-1"))
    again = await demo.http.post("/v1/notes/careful", headers=key("k-1"))

    assert (without.status_code, without.json()["code"]) == (400, "idempotency-key-required")
    assert (with_key.status_code, again.status_code) == (204, 204)
    assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize(
    ("etag", "status", "code"),
    [
        (None, 428, "if-match-required"),
        ('"2"', 412, "etag-stale"),
        ('W/"1"', 400, "if-match-malformed"),
        ("1", 400, "if-match-malformed"),
        ('"1", "2"', 400, "if-match-malformed"),
        ('"' + "9" * 40 + '"', 400, "if-match-malformed"),
        ('"1"', 200, None),
        ("*", 200, None),
    ],
)
async def test_an_update_names_the_version_it_saw(
    demo: Demo, etag: str | None, status: int, code: str | None
) -> None:
    made = await demo.http.post("/v1/notes", json={"title": "a"})
    answer = await demo.http.patch(
        made.headers["Location"],
        json={"title": "b"},
        headers={} if etag is None else {"If-Match": etag},
    )

    assert (answer.status_code, answer.json().get("code")) == (status, code)
    assert answer.headers.get("ETag") == ('"2"' if status == 200 else None)


async def test_of_two_updates_at_once_one_is_stale(demo: Demo) -> None:
    made = await demo.http.post("/v1/notes", json={"title": "a"})
    answers = await asyncio.gather(
        *(
            demo.http.patch(
                made.headers["Location"], json={"title": title}, headers={"If-Match": '"1"'}
            )
            for title in ("b", "c")
        )
    )

    assert sorted(answer.status_code for answer in answers) == [200, 412]
