"""The documents that follow from the event registry: schemas, AsyncAPI, the event table.

Nothing in them is written by hand. `make contracts` writes them; a test compares what is committed
with what the code says, so that every change of a contract is a visible diff.
"""

from collections.abc import Iterable
from typing import Any

from libs.shared.events import COMPACTED_TOPICS, Event
from libs.shared.topics import dead_letter_topic

SAID_BY = {
    "client": "contacts",
    "interaction": "contacts",
    "page": "contacts",
    "deal": "contacts",
    "segment": "scoring",
    "touch": "scoring",
    "audience": "scoring",
    "lead": "routing",
    "rules": "scoring",
    "reminder": "notifications",
    "message": "notifications",
}
PERSONAL_DATA = ("client.", "interaction.")


def all_events() -> list[type[Event]]:
    """Every contract, by name and version."""
    return [Event.registry[key] for key in sorted(Event.registry)]


def said_by(event: type[Event]) -> str:
    """The service that says an event."""
    if event.event_name == "lead.received":
        return "contacts"
    return SAID_BY[event.event_name.split(".")[0]]


def writer_schema(event: type[Event]) -> dict[str, Any]:
    """What we send: nothing but what the schema names."""
    closed: dict[str, Any] = _closed(event.model_json_schema(mode="serialization"))
    return closed


def reader_schema(event: type[Event]) -> dict[str, Any]:
    """What we accept: unknown members are passed over."""
    return event.model_json_schema(mode="validation")


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed["additionalProperties"] = False
    return closed


def golden(event: type[Event]) -> dict[str, Any]:
    """What is kept of a contract in tests/contracts/events."""
    return {
        "name": event.event_name,
        "version": event.event_version,
        "type": event.wire_type(),
        "topic": event.topic,
        "current_topic": event.current_topic,
        "key": event.key_field,
        "writer": writer_schema(event),
        "reader": reader_schema(event),
    }


def event_table(heard: Iterable[tuple[str, type[Event]]]) -> str:
    """docs/events.md.

    Args:
        heard: Pairs of a service's name and an event it subscribes to.
    """
    listeners: dict[type[Event], list[str]] = {}
    for service, event in heard:
        listeners.setdefault(event, []).append(service)
    lines = [
        "# Events",
        "",
        "Made from `libs/shared/events.py` by `make contracts`; do not edit. On the wire an event",
        "is a CloudEvent 1.0 in Kafka's binary mode: attributes as `ce_` headers, JSON as the",
        "value. `ce_id` tells a repeat. Events of one key keep their order.",
        "",
        "| event | v | topic | key | said by | heard by | what it says |",
        "|---|---|---|---|---|---|---|",
    ]
    for event in all_events():
        also = f" and `{event.current_topic}`" if event.current_topic else ""
        who = ", ".join(sorted(listeners.get(event, []))) or "others"
        what = (event.__doc__ or "").strip().splitlines()[0]
        lines.append(
            f"| `{event.event_name}` | {event.event_version} | `{event.topic}`{also} |"
            f" `{event.key_field}` | {said_by(event)} | {who} | {what} |"
        )
    lines += [
        "",
        "Personal data travels in `client.*` and `interaction.*` only. What a service could not",
        "handle is mirrored to `<topic>.dead-letters`.",
        "",
    ]
    return "\n".join(lines)


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of everything Baza says. Source: AsyncAPI 3.0.0."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    for event in all_events():
        name = f"{event.event_name}.v{event.event_version}"
        messages[name] = _message(event, name)
        for topic in filter(None, (event.topic, event.current_topic)):
            channel = channels.setdefault(topic, _channel(topic))
            channel["messages"][name] = {"$ref": f"#/components/messages/{name}"}
            operations[f"{said_by(event)}.says.{name}.on.{topic}"] = {
                "action": "send",
                "channel": {"$ref": f"#/channels/{topic}"},
                "messages": [{"$ref": f"#/channels/{topic}/messages/{name}"}],
                "tags": [{"name": said_by(event)}],
            }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Baza events",
            "version": "1",
            "description": (
                "CloudEvents 1.0 in Kafka binary mode. De-duplicate by `ce_id`; events of one key"
                " keep their order; unknown members and unknown events are to be passed over."
            ),
        },
        "servers": {
            "local": {"host": "127.0.0.1:9199", "protocol": "kafka", "title": "make run"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "messageTraits": {"cloudEvent": {"headers": _HEADERS}},
        },
    }


def _channel(topic: str) -> dict[str, Any]:
    about = (
        "The last event of every key (compacted)."
        if topic in COMPACTED_TOPICS
        else (f"What cannot be handled is mirrored to {dead_letter_topic(topic)}.")
    )
    return {"address": topic, "description": about, "messages": {}}


def _message(event: type[Event], name: str) -> dict[str, Any]:
    schema = writer_schema(event)
    definitions = schema.pop("$defs", {})
    return {
        "name": name,
        "title": event.event_name,
        "summary": (event.__doc__ or "").strip().splitlines()[0],
        "contentType": "application/json",
        "traits": [{"$ref": "#/components/messageTraits/cloudEvent"}],
        "payload": _inlined(schema, definitions),
        "bindings": {"kafka": {"key": {"type": "string", "description": event.key_field}}},
        "x-personal-data": event.event_name.startswith(PERSONAL_DATA),
    }


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its $defs put in place: AsyncAPI resolves references from the root."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    return {name: _inlined(value, definitions) for name, value in schema.items()}


_HEADERS = {
    "type": "object",
    "required": ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_partitionkey"],
    "properties": {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"type": "string", "format": "uuid", "description": "tells a repeat"},
        "ce_source": {"type": "string", "examples": ["/scoring"]},
        "ce_type": {"type": "string", "examples": ["baza.segment.changed.v1"]},
        "ce_time": {"type": "string", "format": "date-time"},
        "ce_subject": {"type": "string"},
        "ce_partitionkey": {"type": "string"},
        "ce_correlationid": {"type": "string"},
        "ce_causationid": {"type": "string", "format": "uuid"},
        "ce_traceparent": {"type": "string", "description": "W3C trace context"},
        "content-type": {"const": "application/json"},
    },
}
