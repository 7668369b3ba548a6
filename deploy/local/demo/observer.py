"""A subscriber that watches every topic from the beginning and counts: the demo's own witness."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import orjson

from libs.shared.background import beside
from libs.shared.cloudevents import decode_headers, event_class
from libs.shared.events import COMPACTED_TOPICS, TOPICS
from libs.shared.kafka import Reader, Record


class Observer:
    """What was said in the broker so far.

    Attributes:
        topics: Events by topic.
        names: Events by name.
        leads: Events of each lead in the order of saying: (name, data).
        segments: Each client's segment as the stream of changes leaves it: (seq, segment).
        gaps: Changes whose seq did not follow the one before.
        repeats: Events that came again, as every subscriber must expect after a crash.
        last_change_ms: When the newest segment.changed was sent, Unix milliseconds.
    """

    def __init__(self, kafka: str, prefix: str) -> None:
        self._kafka = kafka
        self._prefix = prefix
        self.topics: Counter[str] = Counter()
        self.names: Counter[str] = Counter()
        self.leads: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        self.segments: dict[str, tuple[int, str | None]] = {}
        self.gaps = 0
        self.repeats = 0
        self._seen: set[UUID] = set()
        self.last_change_ms = 0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator["Observer"]:
        """Watch while the block runs."""
        async with beside(self._watch(), name="observer"):
            yield self

    async def _watch(self) -> None:
        async with Reader(self._kafka, [self._prefix + topic for topic in TOPICS]).open() as reader:
            while True:
                for record in await reader.fetch(wait_seconds=0.1):
                    self._count(record)

    def _count(self, record: Record) -> None:
        envelope = decode_headers(record.headers)
        kind = event_class(envelope.type)
        if kind is None:
            return
        if envelope.id in self._seen:  # a relay that died before it could delete sends again
            self.repeats += 1
            return
        self._seen.add(envelope.id)
        self.topics[record.topic.removeprefix(self._prefix)] += 1
        self.names[kind.event_name] += 1
        if kind.event_name == "segment.changed":
            self._follow(record)
        elif kind.topic == "leads":
            data = orjson.loads(record.value or b"{}")
            self.leads[data["lead_id"]].append((kind.event_name, data))

    def _follow(self, record: Record) -> None:
        data = orjson.loads(record.value or b"{}")
        seq, _ = self.segments.get(data["client_id"], (0, None))
        self.gaps += data["seq"] != seq + 1
        self.segments[data["client_id"]] = data["seq"], data["new_segment"]
        self.last_change_ms = max(self.last_change_ms, record.timestamp_ms)


async def read_current_segments(kafka: str, prefix: str) -> dict[str, tuple[int, str | None]]:
    """What a subscriber that starts from nothing finds in the compacted topic."""
    found: dict[str, tuple[int, str | None]] = {}
    (topic,) = COMPACTED_TOPICS
    async with Reader(kafka, [prefix + topic]).open() as reader:
        while True:
            records = await reader.fetch(wait_seconds=0.2)
            for record in records:
                if record.value is None:
                    found.pop((record.key or b"").decode(), None)
                    continue
                data = orjson.loads(record.value)
                found[data["client_id"]] = data["seq"], data["new_segment"]
            if not records and await reader.at_end():
                return found
