"""Contracts change in the open: golden schemas, compatibility both ways, the wire format."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from hypothesis import given
from hypothesis import strategies as st
from jsoncompat import check_compat
from pydantic import TypeAdapter

from libs.shared.cloudevents import (
    Envelope,
    NotAnEvent,
    decode_headers,
    encode_headers,
    event_class,
)
from libs.shared.contracts import all_events, reader_schema, writer_schema
from libs.shared.events import Event
from libs.shared.ids import new_id
from tests.contracts.write import GOLDEN, documents

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
LEAVES = [(e.event_name, e.event_version) for e in all_events()]


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What a change of a contract would break; empty when it is compatible both ways."""
    found = []
    if not check_compat(json.dumps(old["reader"]), json.dumps(new["writer"]), "serializer"):
        found.append("subscribers of today could not read what we would send")
    if not check_compat(json.dumps(old["writer"]), json.dumps(new["reader"]), "deserializer"):
        found.append("we could not read what stands in the topics")
    found += [
        f"{member} changed"
        for member in ("type", "topic", "current_topic", "key")
        if old[member] != new[member]
    ]
    return found


@pytest.mark.parametrize("path", documents(), ids=lambda p: p.name)
def test_committed_documents_are_what_the_code_says(path: Path) -> None:
    assert path.exists(), f"{path.name} is missing: run `make contracts`"
    made = documents()[path]()
    assert path.read_text(encoding="utf-8") == made, "run `make contracts` and look at the diff"


def test_no_golden_schema_is_left_of_an_event_that_is_gone() -> None:
    assert {path.name for path in GOLDEN.glob("*.json")} == {
        f"{name}.v{version}.json" for name, version in LEAVES
    }


@pytest.mark.parametrize("event", all_events(), ids=lambda e: e.wire_type())
def test_todays_contract_is_compatible_with_the_golden_one(event: type[Event]) -> None:
    name = f"{event.event_name}.v{event.event_version}.json"
    old = json.loads((GOLDEN / name).read_text(encoding="utf-8"))
    new = {
        "type": event.wire_type(),
        "topic": event.topic,
        "current_topic": event.current_topic,
        "key": event.key_field,
        "writer": writer_schema(event),
        "reader": reader_schema(event),
    }
    assert breaks(old, new) == []


def _changed(schema: dict[str, Any], **changes: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(schema))
    for member in ("writer", "reader"):
        for name, value in changes.items():
            if name == "drop":
                copy[member]["properties"].pop(value)
                copy[member]["required"] = [r for r in copy[member]["required"] if r != value]
            elif name == "require":
                copy[member]["properties"][value] = {"type": "string"}
                copy[member]["required"] = [*copy[member]["required"], value]
            elif name == "offer":
                copy[member]["properties"][value] = {"type": "string", "default": ""}
            else:
                copy[member]["properties"][name] = value
    return copy


@pytest.mark.parametrize(
    ("change", "compatible"),
    [
        ({"offer": "added"}, True),
        ({"require": "added"}, False),
        ({"drop": "manager_id"}, False),
        ({"epoch": {"type": "string"}}, False),
        ({"client_id": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, False),
    ],
    ids=["optional field", "required field", "field dropped", "type changed", "made nullable"],
)
def test_the_gate_lets_only_compatible_changes_through(
    change: dict[str, Any], compatible: bool
) -> None:
    old = json.loads((GOLDEN / "lead.claimed.v1.json").read_text(encoding="utf-8"))
    assert (breaks(old, _changed(old, **change)) == []) is compatible


def test_the_gate_sees_a_changed_topic_and_key() -> None:
    old = json.loads((GOLDEN / "lead.claimed.v1.json").read_text(encoding="utf-8"))
    assert breaks(old, old | {"topic": "deals", "key": "client_id"}) == [
        "topic changed",
        "key changed",
    ]


def test_an_event_defined_twice_is_refused() -> None:
    with pytest.raises(TypeError, match="defined twice"):

        class Again(Event, name="lead.claimed", topic="leads", key="lead_id"):
            """The same name and version once more."""


@pytest.mark.parametrize("event", all_events(), ids=lambda e: e.wire_type())
def test_personal_data_travels_in_client_and_interaction_events_only(event: type[Event]) -> None:
    names = set(event.model_fields)
    personal = {"full_name", "name", "phone", "phones", "email", "address", "card", "topic_text"}
    if not event.event_name.startswith(("client.", "interaction.")):
        assert names & personal == set()


TEXT = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1)


@given(
    id=st.uuids(),
    key=st.uuids().map(str),
    correlation=st.none() | TEXT,
    causation=st.none() | st.uuids(),
    time=st.datetimes(timezones=st.just(UTC)),
)
def test_headers_survive_the_journey_and_the_sdk_reads_them_alike(
    id: UUID, key: str, correlation: str | None, causation: UUID | None, time: datetime
) -> None:
    envelope = Envelope(id, "/routing", "baza.lead.claimed.v1", time, key, correlation, causation)

    headers = encode_headers(envelope)

    assert decode_headers(headers) == envelope
    message = KafkaMessage(headers=dict(headers), key=key.encode(), value=b'{"a": 1}')
    by_sdk = from_binary_event(message)
    assert by_sdk.get_id() == str(id)
    assert by_sdk.get_type() == envelope.type
    assert by_sdk.get_source() == envelope.source
    assert by_sdk.get_time() == time
    assert by_sdk.get_data() == {"a": 1}


@pytest.mark.parametrize("missing", ["ce_id", "ce_source", "ce_type", "ce_time"])
def test_a_record_without_a_required_attribute_is_no_event(missing: str) -> None:
    headers = encode_headers(Envelope(new_id(), "/x", "baza.lead.claimed.v1", NOON, "k"))
    with pytest.raises(NotAnEvent):
        decode_headers([(name, value) for name, value in headers if name != missing])


def test_an_unknown_type_has_no_contract() -> None:
    assert event_class("baza.lead.sang.v1") is None
    assert event_class("baza.lead.claimed.v1") is Event.registry["lead.claimed", 1]


@pytest.mark.parametrize("event", all_events(), ids=lambda e: e.wire_type())
def test_a_reader_passes_over_members_that_it_does_not_know(event: type[Event]) -> None:
    sample = _sample(event)
    read = TypeAdapter(event).validate_python({**sample, "added_later": {"x": 1}})
    assert "added_later" not in read.model_dump()
    assert read.key == str(sample[event.key_field])


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "smallest"])
@pytest.mark.parametrize("event", all_events(), ids=lambda e: e.wire_type())
def test_an_event_travels_as_pydantic_would_write_it(event: type[Event], whole: bool) -> None:
    sample = _sample(event, whole=whole)
    for moment in ("2026-03-02T12:00:00Z", "2026-03-02T12:00:00.000120+03:00"):
        sample["occurred_at"] = moment
        for made in (event.model_validate(sample), event.model_validate_json(json.dumps(sample))):
            assert made.data() == made.model_dump_json().encode()


def _sample(event: type[Event], *, whole: bool = False) -> dict[str, Any]:
    """A valid event, the smallest or one with every field, made from its own schema."""
    schema = reader_schema(event)
    return {
        name: _value(part, schema.get("$defs", {}))
        for name, part in schema["properties"].items()
        if whole or name in schema["required"]
    }


def _value(part: dict[str, Any], definitions: dict[str, Any]) -> Any:
    if "$ref" in part:
        part = definitions[part["$ref"].rsplit("/", 1)[1]]
    if "anyOf" in part:
        part = part["anyOf"][0]
    if part.get("format") == "uuid":
        return str(new_id())
    if part.get("format") in ("date-time", "date"):
        return NOON.isoformat() if part["format"] == "date-time" else NOON.date().isoformat()
    if part.get("pattern"):
        return "RUB"
    if isinstance(any_member := part.get("additionalProperties"), dict):
        return {"x": _value(any_member, definitions)}
    if part["type"] == "object":
        return {
            n: _value(p, definitions)
            for n, p in part["properties"].items()
            if n in part["required"]
        }
    samples: dict[str, Any] = {"string": "x", "integer": 1, "boolean": True, "array": []}
    return samples[part["type"]]
