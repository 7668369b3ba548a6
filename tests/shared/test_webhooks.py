"""Only what a known sender has signed just now gets in, and only once."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from libs.shared import webhooks
from libs.shared.database import Database
from libs.shared.webhooks import ID, SIGNATURE, TIMESTAMP, SignatureInvalid, sign, store, verify

SECRET = "whsec_" + "c2VjcmV0LW9mLXRoZS1zaXRlLWZvcm0="
OLD_SECRET = "whsec_" + "YW4tb2xkZXItc2VjcmV0LW9mLXRoZS1mb3Jt"
BODY = '{"phone": "+79161234567", "comment": "перезвоните"}'.encode()


def signed(body: bytes = BODY, secret: str = SECRET, ago: float = 0.0) -> dict[str, str]:
    moment = datetime.fromtimestamp(time.time() - ago, UTC)
    return sign(secret, identity="msg_2Lh9KRb0pzN4LePd3XiA4v12Axj", raw=body, at=moment)


def refused(
    headers: dict[str, str], body: bytes = BODY, secrets: tuple[str, ...] = (SECRET,)
) -> bool:
    try:
        verify(headers, body, secrets)
    except SignatureInvalid:
        return True
    return False


def test_a_signed_request_is_taken_and_its_id_told() -> None:
    assert verify(signed(), BODY, [SECRET]) == "msg_2Lh9KRb0pzN4LePd3XiA4v12Axj"
    upper = {name.upper(): value for name, value in signed().items()}
    assert verify(upper, BODY, [SECRET]) == "msg_2Lh9KRb0pzN4LePd3XiA4v12Axj"


def test_our_signatures_are_those_of_the_published_vector() -> None:
    # Source: the example of the Standard Webhooks specification.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = sign(
        secret,
        identity="msg_p5jXN8AQM9LWM0D4loKWxJek",
        raw=b'{"test": 2432232314}',
        at=datetime.fromtimestamp(1614265330, UTC),
    )

    assert headers[SIGNATURE] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secrets", [(SECRET, OLD_SECRET), (OLD_SECRET, SECRET)])
def test_both_secrets_work_while_one_replaces_the_other(secrets: tuple[str, ...]) -> None:
    assert not refused(signed(secret=OLD_SECRET), secrets=secrets)
    assert not refused(signed(secret=SECRET), secrets=secrets)
    both = signed(secret=SECRET)
    both[SIGNATURE] += " " + signed(secret=OLD_SECRET)[SIGNATURE] + " v1a,of-another-scheme"
    assert not refused(both, secrets=(OLD_SECRET,))


@pytest.mark.parametrize(
    ("ago", "taken"), [(290, True), (310, False), (-290, True), (-310, False), (86_400, False)]
)
def test_a_signature_lasts_five_minutes(ago: float, taken: bool) -> None:
    assert refused(signed(ago=ago)) is not taken


GOOD = signed(ago=-240)  # good for the next nine minutes, whatever the tests take


@given(
    what=st.sampled_from(["body", ID, TIMESTAMP, SIGNATURE]),
    place=st.integers(min_value=0),
    bit=st.integers(min_value=0, max_value=7),
)
def test_every_flipped_bit_is_noticed(what: str, place: int, bit: int) -> None:
    original = BODY if what == "body" else GOOD[what].encode()
    changed = bytearray(original)
    changed[place % len(changed)] ^= 1 << bit

    if what == "body":
        assert refused(GOOD, bytes(changed))
    else:
        assert refused(GOOD | {what: changed.decode("latin-1")})


def test_every_flipped_byte_of_a_signature_is_noticed() -> None:
    signature = GOOD[SIGNATURE]
    for place in range(len(signature)):
        for char in "A1/=, \n":
            if signature[place] != char:
                changed = signature[:place] + char + signature[place + 1 :]
                assert refused(GOOD | {SIGNATURE: changed}), (place, char)


@given(headers=st.dictionaries(st.sampled_from([ID, TIMESTAMP, SIGNATURE]), st.text()))
def test_no_headers_at_all_make_anything_but_a_refusal(headers: dict[str, str]) -> None:
    assert refused(headers)
    assert refused(GOOD | headers) or GOOD | headers == GOOD


@pytest.mark.parametrize(
    "changes",
    [
        {SIGNATURE: GOOD[SIGNATURE] + "\n"},
        {SIGNATURE: GOOD[SIGNATURE].rstrip("=")},
        {SIGNATURE: GOOD[SIGNATURE].replace("v1,", "v2,")},
        {SIGNATURE: " ".join([GOOD[SIGNATURE]] * 11)},
        {TIMESTAMP: GOOD[TIMESTAMP] + ".0"},
        {TIMESTAMP: "nan"},
        {TIMESTAMP: "1e9"},
        {TIMESTAMP: " " + GOOD[TIMESTAMP]},
        {ID: "x" * 256},
        {ID: ""},
    ],
)
def test_there_is_one_way_to_write_it(changes: dict[str, str]) -> None:
    assert refused(GOOD | changes)


def test_the_signed_parts_cannot_be_cut_differently() -> None:
    # The same bytes are signed for id "msg" and for id "msg.<timestamp>", if dots were allowed.
    moment = datetime.now(UTC)
    now = str(int(moment.timestamp()))
    headers = sign(SECRET, identity="msg", raw=f"{now}.{{}}".encode(), at=moment)

    assert not refused(headers, f"{now}.{{}}".encode())
    assert refused(headers | {ID: f"msg.{now}"}, b"{}")


@pytest.mark.parametrize("body", [b"\xff\xfe", b"\x00", b""], ids=["not UTF-8", "NUL", "empty"])
def test_odd_bodies_make_no_error(body: bytes) -> None:
    headers = GOOD | {SIGNATURE: Webhook(SECRET).sign("m", datetime.now(UTC), "x")}

    assert refused(headers, body)


@pytest.mark.parametrize("secrets", [(), ("",), ("whsec_",), ("whsec_%%%",), ("не секрет",)])
def test_without_a_usable_secret_nothing_is_taken(secrets: tuple[str, ...]) -> None:
    assert refused(GOOD, secrets=secrets)


async def test_a_request_is_stored_once_however_often_it_comes(plumbing: Database) -> None:
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    headers = signed() | {"content-type": "application/json", "authorization": "secret"}

    async def receive(external_id: str, source: str = "site-form") -> bool:
        async with plumbing.transaction() as connection:
            return await store(
                connection,
                source=source,
                external_id=external_id,
                headers=headers,
                raw=BODY,
                received_at=noon,
            )

    together = await asyncio.gather(*(receive("m-1") for _ in range(4)))
    later, other_source = await receive("m-1"), await receive("m-1", source="phone")
    rows = await plumbing.pool.fetch("SELECT * FROM webhook_requests ORDER BY id")

    assert sorted(together) == [False, False, False, True]
    assert (later, other_source, len(rows)) == (False, True, 2)
    assert (rows[0]["body"], rows[0]["due_at"], rows[0]["attempts"]) == (BODY, noon, 0)
    assert set(rows[0]["headers"]) == {ID, TIMESTAMP, "content-type"}


def test_the_tolerance_is_in_real_time() -> None:
    assert refused(signed(ago=-timedelta(days=10_000).total_seconds()))
    assert webhooks.SignatureInvalid.status == 401
