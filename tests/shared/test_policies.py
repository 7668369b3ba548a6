"""What the company changes: defaults, versions, nobody's change lost, everything audited."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import pytest

from libs.shared import audit, policies
from libs.shared.policies import Policy, current, newest
from tests.conftest import PLUMBING, FreshDatabase
from tests.shared.demo_api import ClaimPolicy, Demo, running
from tests.shared.issuer import Issuer


@pytest.fixture
async def demo(fresh_database: FreshDatabase) -> AsyncIterator[Demo]:
    async with (
        Issuer().serving() as issuer,
        running(await fresh_database(PLUMBING), issuer) as made,
    ):
        yield made


async def put(
    demo: Demo,
    etag: str | None,
    role: str = "supervisor",
    reason: str | None = None,
    **body: object,
) -> httpx.Response:
    headers = demo.bearer(role, sub="olga") | ({"If-Match": etag} if etag else {})
    return await demo.http.put(
        "/v1/policies/claims", json={"body": body, "reason": reason}, headers=headers
    )


async def test_the_defaults_are_version_0(demo: Demo) -> None:
    answer = await demo.http.get("/v1/policies/claims", headers=demo.bearer("support"))

    assert answer.headers["ETag"] == '"0"'
    assert answer.json() == {
        "name": "claims",
        "version": 0,
        "body": {"claim_window_minutes": 15, "rounds": 3},
    }
    assert (await demo.http.get("/v1/policies/claims/versions")).json() == []


async def test_a_change_is_a_new_version_in_force_at_once(demo: Demo) -> None:
    async with demo.database.transaction() as connection:
        assert (await current(connection, ClaimPolicy)).version == 0
    first = await put(demo, '"0"', reason="summer", claim_window_minutes=20)
    second = await put(demo, first.headers["ETag"], rounds=5)
    async with demo.database.transaction() as connection:
        bare = await current(connection, ClaimPolicy)
    async with demo.database.session() as session:
        orm = await current(session, ClaimPolicy)

    assert (first.status_code, second.status_code) == (200, 200)
    assert second.headers["ETag"] == '"2"'
    assert bare == orm
    # A version is whole: what a change does not name is the default again.
    assert (bare.version, bare.body) == (2, ClaimPolicy(rounds=5))
    versions = (await demo.http.get("/v1/policies/claims/versions")).json()
    assert [(one["version"], one["changed_by"], one["reason"]) for one in versions] == [
        (2, "olga", None),
        (1, "olga", "summer"),
    ]
    assert (await demo.http.get("/v1/policies")).json()[0]["version"] == 2


async def test_another_process_sees_a_change_within_a_second(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with demo.database.transaction() as connection:
        before = await current(connection, ClaimPolicy)
        await connection.execute(  # as another process would
            "INSERT INTO policies VALUES ('claims', 1, '{\"rounds\": 7}', now(), 'olga', NULL)"
        )
        cached = await current(connection, ClaimPolicy)
        monkeypatch.setattr(policies, "CACHE_SECONDS", 0.0)
        after = await current(connection, ClaimPolicy)

    assert (before.version, cached.version, after.version) == (0, 0, 1)
    assert after.body.rounds == 7


@pytest.mark.parametrize(
    ("etag", "role", "body", "status", "code"),
    [
        (None, "analyst", {}, 428, "if-match-required"),
        ('"1"', "analyst", {}, 412, "etag-stale"),
        ('"0"', "manager", {}, 403, "role-missing"),
        ('"0"', "analyst", {"claim_window_minutes": 0}, 422, "request-invalid"),
        ('"0"', "analyst", {"claim_window_hours": 1}, 422, "request-invalid"),
        ('"0"', "analyst", {"rounds": "many"}, 422, "request-invalid"),
    ],
)
async def test_a_change_that_is_not_allowed_changes_nothing(
    demo: Demo, etag: str | None, role: str, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await put(demo, etag, role=role, **body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await demo.http.get("/v1/policies/claims")).json()["version"] == 0


async def test_a_bad_field_is_pointed_to(demo: Demo) -> None:
    answer = await put(demo, '"0"', claim_window_minutes=0)

    assert answer.json()["errors"][0]["pointer"] == "/body/claim_window_minutes"


async def test_of_two_changes_at_once_one_is_told_that_it_is_stale(demo: Demo) -> None:
    answers = await asyncio.gather(*(put(demo, '"0"', rounds=rounds) for rounds in range(2, 7)))

    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412]
    stale = next(answer for answer in answers if answer.status_code == 412)
    assert stale.json()["current_version"] == 1


async def test_an_unknown_policy_is_told_with_the_known_ones(demo: Demo) -> None:
    for path in ("/v1/policies/x", "/v1/policies/x/schema", "/v1/policies/x/versions"):
        answer = await demo.http.get(path)
        assert (answer.status_code, answer.json()["known"]) == (404, ["claims"])


async def test_the_schema_tells_limits_and_defaults(demo: Demo) -> None:
    schema = (await demo.http.get("/v1/policies/claims/schema")).json()

    assert schema["properties"]["claim_window_minutes"] == {
        "default": 15,
        "maximum": 1440,
        "minimum": 1,
        "title": "Claim Window Minutes",
        "type": "integer",
    }


async def test_a_stored_field_that_is_gone_since_is_ignored(demo: Demo) -> None:
    async with demo.database.session() as session:
        await (await session.connection()).exec_driver_sql(
            "INSERT INTO policies VALUES"
            " ('claims', 1, '{\"rounds\": 9, \"of_old\": 1}', now(), 'olga', NULL)"
        )
        found = await newest(session, ClaimPolicy)

    assert found.body == ClaimPolicy(rounds=9)


def test_a_policy_without_a_name_or_a_default_cannot_be_written() -> None:
    with pytest.raises(TypeError, match="has a name"):

        class Nameless(Policy):
            rounds: int = 1

    with pytest.raises(TypeError, match="only defaults"):

        class Hard(Policy, name="hard"):
            rounds: int


async def test_every_change_is_in_the_audit_log(demo: Demo) -> None:
    for version in range(3):
        await put(demo, f'"{version}"', rounds=version + 1)
    first = (await demo.http.get("/v1/audit", params={"limit": 2})).json()
    rest = (
        await demo.http.get("/v1/audit", params={"limit": 2, "cursor": first["next_cursor"]})
    ).json()
    entries = [*first["items"], *rest["items"]]

    assert [entry["details"] for entry in entries] == [{"version": n} for n in (3, 2, 1)]
    assert {(entry["actor"], entry["action"], entry["subject_id"]) for entry in entries} == {
        ("olga", "policy.changed", "claims")
    }
    assert all(entry["correlation_id"] for entry in entries)
    assert rest["next_cursor"] is None
    narrowed = await demo.http.get("/v1/audit", params={"actor": "nobody"})
    assert narrowed.json()["items"] == []


@pytest.mark.parametrize(("role", "status"), [("supervisor", 200), ("manager", 403)])
async def test_the_audit_log_is_for_supervisors(demo: Demo, role: str, status: int) -> None:
    answer = await demo.http.get("/v1/audit", headers=demo.bearer(role))

    assert answer.status_code == status


async def test_details_may_hold_ids_as_the_database_gave_them(demo: Demo) -> None:
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    async with demo.database.transaction() as connection:
        identity = await connection.fetchval("SELECT gen_random_uuid()")
        await audit.record(
            connection,
            action="client.merged",
            subject_type="client",
            subject_id=str(identity),
            details={"into": identity},
            at=noon,
        )
    (entry,) = (await demo.http.get("/v1/audit")).json()["items"]

    assert (entry["details"], entry["actor"]) == ({"into": str(identity)}, "system")


async def test_the_audit_log_cannot_be_rewritten(demo: Demo) -> None:
    await put(demo, '"0"', rounds=2)

    for statement in ("UPDATE audit_log SET actor = 'nobody'", "DELETE FROM audit_log"):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await demo.database.pool.execute(statement)
