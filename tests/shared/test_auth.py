"""Only tokens of our issuer, for us, in time and unforged open a door; roles open the rest."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import httpx
import orjson
import pytest
from joserfc.jwk import Key

from libs.shared import auth
from libs.shared.auth import IssuerAway, Principal, Role, TokenExpired, TokenInvalid, Tokens
from tests.conftest import PLUMBING, FreshDatabase
from tests.shared.demo_api import running
from tests.shared.issuer import (
    AUDIENCE,
    Issuer,
    ec_key,
    ed_key,
    rsa_key,
    signed_with_the_public_key,
)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer().serving() as made:
        yield made


@pytest.fixture
async def tokens(issuer: Issuer) -> AsyncIterator[Tokens]:
    async with Tokens.open(jwks_url=issuer.jwks_url, issuer=issuer.name, audience=AUDIENCE) as made:
        yield made


async def test_a_good_token_tells_who_is_asking(issuer: Issuer, tokens: Tokens) -> None:
    manager_id = uuid4()
    token = issuer.token("manager", "no-such-role", sub="anna", manager_id=manager_id)

    assert await tokens.verify(token) == Principal(
        "anna", frozenset({Role.MANAGER}), manager_id=manager_id
    )


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec_key("k"), "ES256"),
        (rsa_key("k"), "RS256"),
        (ed_key("k"), "EdDSA"),
        (ed_key("k"), "Ed25519"),
    ],
    ids=["ES256", "RS256", "EdDSA", "Ed25519"],
)
async def test_the_issuer_chooses_among_four_algorithms(
    issuer: Issuer, tokens: Tokens, key: Key, algorithm: str
) -> None:
    issuer.keys = [key]

    principal = await tokens.verify(issuer.token("analyst", key=key, algorithm=algorithm))

    assert principal.roles == {Role.ANALYST}


def unsigned(issuer: Issuer) -> str:
    parts = ({"alg": "none", "kid": "one"}, issuer.claims())
    coded = [base64.urlsafe_b64encode(orjson.dumps(part)).decode().rstrip("=") for part in parts]
    return ".".join([*coded, ""])


def with_other_claims(issuer: Issuer) -> str:
    good, other = issuer.token("manager").split("."), issuer.token("admin").split(".")
    return ".".join([good[0], other[1], good[2]])


NOW = int(time.time())
BAD_TOKENS: dict[str, Callable[[Issuer], str]] = {
    "another issuer": lambda issuer: issuer.token(iss="http://elsewhere.example"),
    "no issuer": lambda issuer: issuer.token(iss=None),
    "another audience": lambda issuer: issuer.token(aud="somebody-else"),
    "no audience": lambda issuer: issuer.token(aud=None),
    "no expiry": lambda issuer: issuer.token(exp=None),
    "expiry is a text": lambda issuer: issuer.token(exp="tomorrow"),
    "no subject": lambda issuer: issuer.token(sub=None),
    "subject is a number": lambda issuer: issuer.token(sub=7),
    "not valid yet": lambda issuer: issuer.token(nbf=NOW + 3600),
    "roles are a text": lambda issuer: issuer.token(roles="admin"),
    "manager_id is no UUID": lambda issuer: issuer.signed(manager_id="anna"),
    "algorithm none": unsigned,
    "HMAC with the public key": signed_with_the_public_key,
    "another key under a known id": lambda issuer: issuer.token(key=ec_key("one")),
    "unknown key": lambda issuer: issuer.token(key=ec_key("stranger")),
    "claims of another token": with_other_claims,
    "cut off": lambda issuer: issuer.token()[:-10],
    "garbage": lambda _issuer: "garbage",
    "three dots": lambda _issuer: "...",
    "not ASCII": lambda _issuer: "жетон.жетон.жетон",
    "header is a list": lambda _issuer: "W10.e30.",
    "header nested deeply": lambda _issuer: (
        base64.urlsafe_b64encode(b'{"alg":"ES256","x":' + b"[" * 900 + b"]" * 900 + b"}").decode()
        + ".e30.AAAA"
    ),
    "key id is a number": lambda _issuer: (
        base64.urlsafe_b64encode(b'{"alg":"ES256","kid":7}').decode() + ".e30.AAAA"
    ),
    "huge": lambda issuer: issuer.token(padding="x" * 10_000),
    "megabyte": lambda _issuer: "a" * 1_000_000,
}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_a_bad_token_is_refused(issuer: Issuer, tokens: Tokens, name: str) -> None:
    bad = BAD_TOKENS[name](issuer)

    with pytest.raises(TokenInvalid):
        await tokens.verify(bad)


@pytest.mark.parametrize(
    ("seconds_ago", "good"), [(10, True), (40, False)], ids=["within the leeway", "after it"]
)
async def test_a_token_ends_half_a_minute_after_its_time(
    issuer: Issuer, tokens: Tokens, seconds_ago: int, good: bool
) -> None:
    token = issuer.token(exp=int(time.time()) - seconds_ago)

    if good:
        assert (await tokens.verify(token)).subject == "user-1"
    else:
        with pytest.raises(TokenExpired):
            await tokens.verify(token)


async def test_a_remembered_token_ends_too(issuer: Issuer, tokens: Tokens) -> None:
    token = issuer.token(exp=int(time.time()) - auth.LEEWAY_SECONDS + 1)
    await tokens.verify(token)
    deadline = time.monotonic() + 5

    with pytest.raises(TokenExpired):
        while time.monotonic() < deadline:
            await tokens.verify(token)
            await asyncio.sleep(0.05)


async def test_keys_are_fetched_once_for_many_tokens(issuer: Issuer, tokens: Tokens) -> None:
    await asyncio.gather(*(tokens.verify(issuer.token(sub=f"user-{n}")) for n in range(50)))

    assert issuer.asked == 1


async def test_a_flood_of_unknown_keys_does_not_reach_the_issuer(
    issuer: Issuer, tokens: Tokens
) -> None:
    await tokens.verify(issuer.token())
    for number in range(30):
        with pytest.raises(TokenInvalid):
            await tokens.verify(issuer.token(key=ec_key(f"stranger-{number}")))

    assert issuer.asked == 1


async def test_a_new_key_is_found_and_a_withdrawn_one_forgotten(
    issuer: Issuer, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "REFRESH_SECONDS", 0.0)
    old = issuer.token()
    await tokens.verify(old)
    issuer.keys = [ec_key("two")]

    assert (await tokens.verify(issuer.token(sub="later"))).subject == "later"
    with pytest.raises(TokenInvalid):
        await tokens.verify(old)


async def test_known_keys_go_on_working_while_the_issuer_is_away(
    issuer: Issuer, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tokens.verify(issuer.token())
    await issuer.go_away()
    monkeypatch.setattr(auth, "KEYS_LIFETIME_SECONDS", 0.0)
    monkeypatch.setattr(auth, "REFRESH_SECONDS", 0.0)

    assert (await tokens.verify(issuer.token(sub="still-here"))).subject == "still-here"


async def test_without_any_key_nothing_is_said_about_the_token(
    issuer: Issuer, tokens: Tokens
) -> None:
    await issuer.go_away()

    with pytest.raises(IssuerAway):
        await tokens.verify(issuer.token())


async def test_the_cache_of_tokens_is_bounded(
    issuer: Issuer, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "CACHED_TOKENS", 10)
    for number in range(30):
        await tokens.verify(issuer.token(sub=f"user-{number}"))

    assert len(tokens._verified) == 10


@pytest.mark.parametrize("role", list(Role))
async def test_roles_decide_and_admin_passes_everywhere(
    fresh_database: FreshDatabase, issuer: Issuer, role: Role
) -> None:
    async with running(await fresh_database(PLUMBING), issuer) as demo:
        answer = await demo.http.get("/v1/notes/count", headers=demo.bearer(role))

    if role in (Role.MANAGER, Role.ADMIN):
        assert answer.status_code == 200
    else:
        assert (answer.status_code, answer.json()["code"]) == (403, "role-missing")
        assert answer.json()["roles"] == ["manager"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "token-missing"),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, "token-missing"),
        ({"Authorization": "Bearer"}, "token-missing"),
        ({"Authorization": "Bearer garbage"}, "token-invalid"),
        ({"Authorization": "bearer  garbage"}, "token-invalid"),
    ],
)
async def test_the_answer_without_a_good_token_says_what_is_wanted(
    fresh_database: FreshDatabase, issuer: Issuer, headers: dict[str, str], code: str
) -> None:
    async with running(await fresh_database(PLUMBING), issuer) as demo:
        transport = httpx.ASGITransport(app=demo.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://demo") as http:
            # The body is broken too: who is asking is looked at first.
            answer = await http.post("/v1/notes", content=b"{", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="baza"')


async def test_an_expired_token_is_told_apart(
    fresh_database: FreshDatabase, issuer: Issuer
) -> None:
    async with running(await fresh_database(PLUMBING), issuer) as demo:
        answer = await demo.http.get("/v1/notes/count", headers=demo.bearer(exp=1_000_000_000))

    assert (answer.status_code, answer.json()["code"]) == (401, "token-expired")


async def test_an_issuer_that_was_never_reached_is_no_fault_of_the_caller(
    fresh_database: FreshDatabase, issuer: Issuer
) -> None:
    await issuer.go_away()
    async with running(await fresh_database(PLUMBING), issuer) as demo:
        answer = await demo.http.get("/v1/notes/count")

    assert (answer.status_code, answer.json()["code"]) == (503, "token-issuer-away")
    assert int(answer.headers["Retry-After"]) > 0
