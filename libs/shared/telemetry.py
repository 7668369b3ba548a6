"""Traces that follow a piece of work from the request through the outbox to every consumer.

Spans exist only where a collector is configured. Without one nothing is recorded, and the W3C
`traceparent` still travels from request to event to request, so that a collector further down
the line can put the pieces together.
"""

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags
from opentelemetry.util.types import AttributeValue

from libs.shared import context

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_ZEROS = ("0" * 32, "0" * 16)
MAX_LINKS = 100  # a batch of thousands must not make a span of megabytes
_EMPTY = Context()

_tracer: trace.Tracer | None = None


def configure(service: str, otlp_endpoint: str | None) -> None:
    """Send this process's spans to a collector; None leaves tracing off.

    Args:
        service: The name shown for this process.
        otlp_endpoint: Base address of an OTLP/HTTP collector, without `/v1/traces`.
    """
    global _tracer
    if otlp_endpoint is None:
        _tracer = None
        return
    # Imported here: the SDK takes 0.2 s to load, which every start without a collector would pay.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    exporter = OTLPSpanExporter(endpoint=otlp_endpoint.rstrip("/") + "/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    use_provider(provider)


def use_provider(provider: trace.TracerProvider) -> None:
    """Take spans from a provider made elsewhere."""
    global _tracer
    _tracer = provider.get_tracer("baza")


def is_on() -> bool:
    """Whether spans are recorded in this process."""
    return _tracer is not None


def parse(traceparent: str | None) -> SpanContext | None:
    """The span that a `traceparent` names; None when it is missing or malformed."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if found is None or found[1] == _ZEROS[0] or found[2] == _ZEROS[1]:
        return None
    flags = TraceFlags(int(found[3], 16))
    return SpanContext(int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=flags)


def new_traceparent() -> str:
    """A `traceparent` for work that nobody traces yet.

    Its flags ask to sample: a consumer that has a collector then records its part.
    """
    # Identifiers, not secrets: the fast generator is the right one.
    return f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-01"


def links_from(traceparents: Iterable[str | None]) -> list[Link]:
    """Links from a batch's span to the spans that caused its parts, each once, at most 100."""
    if _tracer is None:
        return []
    links: dict[str, Link] = {}
    for traceparent in traceparents:
        if traceparent and traceparent not in links and (cause := parse(traceparent)):
            links[traceparent] = Link(cause)
            if len(links) == MAX_LINKS:
                break
    return list(links.values())


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: str | None = None,
    links: Sequence[Link] = (),
    attributes: Mapping[str, AttributeValue] | None = None,
) -> Iterator[Span | None]:
    """Record a block as a span and bind its `traceparent` for what the block sends on.

    Args:
        name: Low cardinality: a route template or an event's name, never an id.
        parent: `traceparent` of the cause; by default the one bound in the context.

    Returns:
        The span, or None when tracing is off; an error that leaves the block is recorded on it.
    """
    parent = parent or context.current().traceparent
    if _tracer is None:
        if parent is None or parent == context.current().traceparent:
            yield None
        else:
            with context.bound(traceparent=parent):
                yield None
        return
    cause = parse(parent)
    # An empty context, not the ambient one: the parent is what our own context says.
    ambient = trace.set_span_in_context(NonRecordingSpan(cause), _EMPTY) if cause else _EMPTY
    started = _tracer.start_span(
        name, context=ambient, kind=kind, links=links, attributes=attributes
    )
    with (
        trace.use_span(started, end_on_exit=True),
        context.bound(traceparent=_format(started.get_span_context())),
    ):
        yield started


def _format(span_context: SpanContext) -> str:
    return (
        f"00-{span_context.trace_id:032x}-{span_context.span_id:016x}"
        f"-{int(span_context.trace_flags):02x}"
    )
