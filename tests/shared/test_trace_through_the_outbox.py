"""One trace from a request, through outbox, relay, Kafka and inbox, to the effect's own event."""

from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from libs.shared import outbox, telemetry
from libs.shared.database import Connection, Database
from libs.shared.events import LeadClaimed
from libs.shared.ids import new_id
from libs.shared.inbox import Inbox
from libs.shared.kafka import Record, Topic, ensure_topics
from libs.shared.subscriptions import Dispatcher, on
from tests.shared.streams import claimed, released
from tests.shared.test_outbox_and_relay import everything_in, outbox_is_empty, relaying


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.use_provider(provider)
    yield exporter
    telemetry.configure("test", None)


def linked(span: ReadableSpan) -> set[int]:
    return {link.context.trace_id for link in span.links}


async def test_a_trace_follows_an_event_to_its_effect(
    spans: InMemorySpanExporter, plumbing: Database, kafka_address: str, topic_prefix: str
) -> None:
    await ensure_topics(kafka_address, [Topic(topic_prefix + "leads")], partitions=1, replication=1)
    lead = new_id()

    async def give_back(events: Sequence[LeadClaimed], tx: Connection) -> None:
        await outbox.add_all(tx, [released(lead, 1).caused_by(event) for event in events])

    with telemetry.span("request"):
        async with plumbing.session() as session:
            await outbox.add(session, claimed(lead, 1))
    async with relaying(plumbing, kafka_address, topic_prefix):
        (record,) = await everything_in(kafka_address, topic_prefix + "leads", 1)
        await outbox_is_empty(plumbing)
    inbox = Inbox(plumbing, Dispatcher([on(LeadClaimed, give_back)], topic_prefix))
    await inbox.apply(
        [Record(record.topic, 0, 0, record.key, record.value, record.headers, record.timestamp)]  # type: ignore[attr-defined]  # a record of aiokafka
    )

    found = {span.name: span for span in spans.get_finished_spans()}
    trace = found["request"].context.trace_id
    assert linked(found["outbox publish"]) == {trace}
    assert linked(found["inbox batch"]) == {trace}
    effect = await plumbing.pool.fetchval("SELECT traceparent FROM outbox")
    assert effect.split("-")[1] == f"{trace:032x}"
