"""CloudEvents 1.0 in Kafka's binary mode: attributes as `ce_` headers, data as the value.

The body never has to be opened to route, recognise or trace an event, and a null value (a
tombstone of a compacted topic) has its place.

Source: CloudEvents Kafka Protocol Binding 1.0.2, section 3.2; Distributed Tracing extension.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from libs.shared.events import Event
from libs.shared.ids import quick

Headers = Sequence[tuple[str, bytes]]


class Envelope(NamedTuple):
    """The attributes of one event as they travel.

    Attributes:
        type: `baza.<name>.v<version>`.
        causation_id: The event that this one is the effect of.
    """

    id: UUID
    source: str
    type: str
    time: datetime
    key: str
    correlation_id: str | None = None
    causation_id: UUID | None = None
    traceparent: str | None = None


class NotAnEvent(ValueError):
    """A record whose headers are not those of a CloudEvent in binary mode."""


def encode_headers(envelope: Envelope) -> list[tuple[str, bytes]]:
    """The Kafka headers of an event."""
    key = envelope.key.encode()
    time = envelope.time if envelope.time.tzinfo is UTC else envelope.time.astimezone(UTC)
    headers = [
        *_fixed(envelope.source, envelope.type),
        ("ce_id", str(envelope.id).encode()),
        ("ce_time", time.isoformat()[: -len("+00:00")].encode() + b"Z"),
        ("ce_subject", key),
        ("ce_partitionkey", key),
    ]
    if envelope.correlation_id:
        headers.append(("ce_correlationid", envelope.correlation_id.encode()))
    if envelope.causation_id:
        headers.append(("ce_causationid", str(envelope.causation_id).encode()))
    if envelope.traceparent:
        headers.append(("ce_traceparent", envelope.traceparent.encode()))
    return headers


@lru_cache(maxsize=1000)
def _fixed(source: str, type_: str) -> Headers:
    """The headers that are the same in every event of a type."""
    return (
        ("ce_specversion", b"1.0"),
        ("content-type", b"application/json"),
        ("ce_source", source.encode()),
        ("ce_type", type_.encode()),
    )


def decode_headers(headers: Headers) -> Envelope:
    """Read an event's attributes.

    Raises:
        NotAnEvent: A required attribute is missing or malformed.
    """
    found = dict(headers)
    try:
        key = found.get("ce_partitionkey") or found.get("ce_subject") or b""
        return Envelope(
            quick(found["ce_id"].decode()),
            found["ce_source"].decode(),
            found["ce_type"].decode(),
            _instant(found["ce_time"].decode()),
            key.decode(),
            _optional(found, "ce_correlationid"),
            quick(c.decode()) if (c := found.get("ce_causationid")) else None,
            _optional(found, "ce_traceparent"),
        )
    except (KeyError, ValueError) as error:
        raise NotAnEvent(f"not a CloudEvent in binary mode: {error!r}") from error


def _optional(found: Mapping[str, bytes], name: str) -> str | None:
    value = found.get(name)
    return value.decode() if value else None


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("ce_time has no zone")
    return moment


_BY_TYPE: dict[str, type[Event]] = {}


def event_class(wire_type: str) -> type[Event] | None:
    """The contract behind a CloudEvents type; None for one that we do not know."""
    if len(_BY_TYPE) != len(Event.registry):
        _BY_TYPE.update({cls.wire_type(): cls for cls in Event.registry.values()})
    return _BY_TYPE.get(wire_type)
