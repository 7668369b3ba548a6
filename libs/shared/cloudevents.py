"""CloudEvents 1.0 in Kafka's binary mode: attributes as `ce_` headers, data as the value.

The body never has to be opened to route, recognise or trace an event, and a null value (a
tombstone of a compacted topic) has its place.

Source: CloudEvents Kafka Protocol Binding 1.0.2, section 3.2; Distributed Tracing extension.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

import orjson

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
    return headers_of(*envelope)


def headers_of(
    id_: UUID,
    source: str,
    type_: str,
    time: datetime,
    subject: str,
    correlation_id: str | None,
    causation_id: UUID | None,
    traceparent: str | None,
) -> list[tuple[str, bytes]]:
    """`encode_headers` for who has the members of an `Envelope` and needs none."""
    key = subject.encode()
    instant = time if time.tzinfo is UTC else time.astimezone(UTC)
    headers = [
        *_fixed(source, type_),
        ("ce_id", str(id_).encode()),
        ("ce_time", orjson.dumps(instant, option=orjson.OPT_UTC_Z)[1:-1]),  # without its quotes
        ("ce_subject", key),
        ("ce_partitionkey", key),
    ]
    if correlation_id:
        headers.append(("ce_correlationid", correlation_id.encode()))
    if causation_id:
        headers.append(("ce_causationid", str(causation_id).encode()))
    if traceparent:
        headers.append(("ce_traceparent", traceparent.encode()))
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
    get = found.get
    try:
        return Envelope(
            quick(found["ce_id"].decode()),
            found["ce_source"].decode(),
            found["ce_type"].decode(),
            _instant(found["ce_time"].decode()),
            (get("ce_partitionkey") or get("ce_subject") or b"").decode(),
            told.decode() if (told := get("ce_correlationid")) else None,
            quick(cause.decode()) if (cause := get("ce_causationid")) else None,
            trace.decode() if (trace := get("ce_traceparent")) else None,
        )
    except (KeyError, ValueError) as error:
        raise NotAnEvent(f"not a CloudEvent in binary mode: {error!r}") from error


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
