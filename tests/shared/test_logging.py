"""Logs are JSON, tied to the request, and tell nothing about anybody."""

import logging as stdlib_logging
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from libs.shared import context, logging

CANARY_PHONE = "+7 (916) 555-01-73"
CANARY_EMAIL = "Kanareyka.Ptitsyna@example.test"
CANARY_NAME = "Канарейка Птицына"


@pytest.fixture(autouse=True)
def _configured() -> Iterator[None]:
    logging.configure("contacts", "INFO")
    yield
    structlog.reset_defaults()


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_json_with_service_level_time_and_the_bound_context(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cause = uuid.uuid4()
    with context.bound(correlation_id="c-1", actor="user-7", causation_id=cause):
        structlog.get_logger().info("lead_reassigned", lead_id="42", attempt=2)

    (line,) = written(capsys)

    assert line.pop("at").endswith("Z")
    assert line == {
        "event": "lead_reassigned",
        "lead_id": "42",
        "attempt": 2,
        "correlation_id": "c-1",
        "causation_id": str(cause),
        "actor": "user-7",
        "service": "contacts",
        "level": "info",
    }


def test_nothing_personal_gets_into_the_logs_whatever_way_it_comes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Card(BaseModel):
        age: int

    log = structlog.get_logger()
    log.info("said", text_of=f"call {CANARY_PHONE} or {CANARY_EMAIL}", full_name=CANARY_NAME)
    log.info("nested", request={"client": {"name": CANARY_NAME, "phones": [CANARY_PHONE]}})
    log.info(
        "listed", values=[CANARY_EMAIL, {"E-Mail": 1, "email": CANARY_EMAIL}, ("89165550173",)]
    )
    log.info("counted", value=79165550173)
    log.info("authorised", Authorization="Bearer canary-token", access_token="canary-token")
    log.info(f"interpolated {CANARY_PHONE}")
    stdlib_logging.getLogger("aiokafka").warning("cannot send to %s", CANARY_EMAIL)
    try:
        Card.model_validate({"age": CANARY_NAME})
    except ValueError:
        log.exception("not_read")
    try:
        raise asyncpg.DataError(f'invalid input for query argument $1: "{CANARY_NAME}"')
    except asyncpg.DataError:
        stdlib_logging.getLogger("uvicorn.error").exception("broken")

    shown = capsys.readouterr().err

    assert len(shown.splitlines()) == 9
    for canary in ("Канарейка", "Птицына", "Ptitsyna", "example.test", "canary-token"):
        assert canary not in shown
    assert "5550173" not in "".join(char for char in shown if char.isalnum())


def test_a_phone_keeps_three_digits_and_an_address_its_hash() -> None:
    masked = logging.mask(f"from {CANARY_EMAIL} to {CANARY_PHONE}")

    assert masked == logging.mask(f"from {CANARY_EMAIL.lower()} to 89990000173")
    assert masked.startswith("from email:")
    assert masked.endswith("to ***173")


@pytest.mark.parametrize(
    "text",
    [
        "0190f3c2-7d0b-7cc2-9e0a-5b0f6d3c8a11",
        "12345678-1234-1234-1234-123456789012",
        "2026-11-23T15:30:00.123456+00:00",
        "2026-11-23 15:30:00Z",
        "00-12345678901234567890123456789012-1234567890123456-01",
        "192.168.100.200",
        "took 1234 ms",
        "partition 3 of deals",
    ],
)
def test_ids_instants_and_addresses_of_machines_stay_as_they_are(text: str) -> None:
    assert logging.mask(text) == text


@given(moment=st.datetimes(timezones=st.just(UTC)), identity=st.uuids())
def test_no_instant_or_id_is_ever_taken_for_a_phone(moment: datetime, identity: uuid.UUID) -> None:
    text = f"{identity} at {moment.isoformat()}"

    assert logging.mask(text) == text


def test_numbers_that_are_ids_or_counts_stay(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.get_logger().info("sent", event_id=12345678901, amount_minor=10**12, offset=10**11)

    (line,) = written(capsys)

    assert (line["event_id"], line["amount_minor"], line["offset"]) == (12345678901, 10**12, 10**11)


def test_the_standard_librarys_lines_look_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    stdlib_logging.getLogger("uvicorn.error").info("Started server process [%d]", 17)
    stdlib_logging.getLogger("aiokafka.conn").info("too chatty")

    (line,) = written(capsys)

    assert line["event"] == "Started server process [17]"
    assert (line["logger"], line["level"], line["service"]) == ("uvicorn.error", "info", "contacts")


def test_the_level_counts(capsys: pytest.CaptureFixture[str]) -> None:
    logging.configure("contacts", "WARNING")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")

    assert [line["event"] for line in written(capsys)] == ["loud"]


def test_an_error_is_told_with_its_place_and_its_cause(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise RuntimeError("outer") from inner
    except RuntimeError:
        structlog.get_logger().exception("failed")

    (line,) = written(capsys)

    assert "test_logging.py" in line["exception"]
    assert "KeyError: 'inner'" in line["exception"]
    assert line["exception"].endswith("RuntimeError: outer")


def test_what_kafkas_client_repeats_is_shown_once_in_a_while(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kafka = stdlib_logging.getLogger("aiokafka.client")
    began = time.time()

    def complain(seconds: float, port: int) -> None:
        record = kafka.makeRecord(
            kafka.name, stdlib_logging.ERROR, "", 0, "Unable connect to %s", (port,), None
        )
        record.created = began + seconds
        kafka.handle(record)

    for tenth in range(50):
        complain(tenth / 10, 9092 + tenth % 3)
    complain(11, 9092)
    stdlib_logging.getLogger("uvicorn.error").error("Unable connect to %s", 1)
    stdlib_logging.getLogger("uvicorn.error").error("Unable connect to %s", 1)

    assert [line["event"] for line in written(capsys)] == [
        "Unable connect to 9092",
        "Unable connect to 9092 (and 49 times more before)",
        "Unable connect to 1",
        "Unable connect to 1",
    ]
