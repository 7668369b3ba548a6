"""A trace follows the work; without a collector it costs nothing and still travels."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from libs.shared import context, telemetry

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.use_provider(provider)
    yield exporter
    telemetry.configure("test", None)


def test_without_a_collector_the_traceparent_still_travels() -> None:
    telemetry.configure("test", None)
    with telemetry.span("deal.closed", parent=TRACE) as span:
        assert span is None
        assert context.current().traceparent == TRACE
        with telemetry.span("inside"):
            assert context.current().traceparent == TRACE
    assert context.current().traceparent is None
    assert telemetry.links_from([TRACE]) == []


def test_a_span_is_the_child_of_its_cause_and_the_parent_of_what_is_sent(
    spans: InMemorySpanExporter,
) -> None:
    with telemetry.span("outer", kind=SpanKind.CONSUMER, parent=TRACE):
        sent = context.current().traceparent
        with telemetry.span("inner", attributes={"events": 3}):
            pass

    inner, outer = spans.get_finished_spans()
    assert inner.parent is not None
    assert outer.parent is not None
    assert (f"{outer.context.trace_id:032x}", f"{outer.parent.span_id:016x}") == (
        TRACE[3:35],
        TRACE[36:52],
    )
    assert inner.parent.span_id == outer.context.span_id
    assert sent == f"00-{TRACE[3:35]}-{outer.context.span_id:016x}-01"
    assert (outer.kind, dict(inner.attributes or {})) == (SpanKind.CONSUMER, {"events": 3})


def test_work_without_a_cause_begins_a_trace(spans: InMemorySpanExporter) -> None:
    with telemetry.span("timer"):
        pass

    (found,) = spans.get_finished_spans()
    assert found.parent is None


def test_an_invented_trace_is_recorded_further_on(spans: InMemorySpanExporter) -> None:
    with telemetry.span("consumer", parent=telemetry.new_traceparent()):
        pass

    assert len(spans.get_finished_spans()) == 1


def test_an_error_is_recorded_and_goes_on(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="broken"), telemetry.span("work"):
        raise ValueError("broken")

    (found,) = spans.get_finished_spans()
    assert found.status.status_code is StatusCode.ERROR


def test_a_batch_is_linked_to_each_cause_once(spans: InMemorySpanExporter) -> None:
    links = telemetry.links_from([TRACE, None, OTHER, TRACE, "garbage", ""])
    with telemetry.span("batch", links=links):
        pass

    (found,) = spans.get_finished_spans()
    assert [f"{link.context.trace_id:032x}" for link in found.links] == [TRACE[3:35], OTHER[3:35]]


def test_a_batch_of_thousands_has_a_hundred_links(spans: InMemorySpanExporter) -> None:
    assert len(telemetry.links_from(telemetry.new_traceparent() for _ in range(1000))) == 100


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "",
        "garbage",
        TRACE.upper(),
        TRACE + "\n",
        TRACE.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)
def test_a_malformed_traceparent_is_no_cause(bad: str | None) -> None:
    assert telemetry.parse(bad) is None
