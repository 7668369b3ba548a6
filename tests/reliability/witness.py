"""What was said: every topic read from its beginning, each event at its first appearance.

A record that comes again is a repeat, which every subscriber must expect. Two different events
that tell the same fact are not: that is an effect that was done twice.
"""

import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from libs.shared.cloudevents import NotAnEvent, decode_headers, event_class
from libs.shared.events import TOPICS
from libs.shared.kafka import Reader, Record
from tests.reliability import injected

Fact = tuple[str, str]  # name of the event, id of what it tells of


@dataclass(slots=True)
class Witness:
    """Everything that was said in the broker.

    Attributes:
        since: When it last began to read, Unix seconds: what is said later it may not have heard.
        facts: How many different events tell each fact.
        lanes: Event ids of each (topic, key) in the order of first appearance.
        deals_of: Deals of each client in the order in which they were said to be closed.
        leads: Each lead's history: (event's name, data).
        moves: Each client's segment changes: (seq, new segment).
        given_back: Money by deal.
        poison: (service, topic, partition, offset) of what must be laid aside.
        without_rate: Deals of the poison that can be mended.
    """

    reader: Reader = field(repr=False)
    since: float = 0.0
    events: int = 0
    repeats: int = 0
    seen: set[UUID] = field(default_factory=set)
    facts: Counter[Fact] = field(default_factory=Counter)
    lanes: dict[tuple[str, str], list[UUID]] = field(default_factory=lambda: defaultdict(list))
    deals_of: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    leads: dict[str, list[tuple[str, dict[str, Any]]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    lead_clients: set[str] = field(default_factory=set)
    moves: dict[str, list[tuple[int, str | None]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    given_back: Counter[str] = field(default_factory=Counter)
    reminders: dict[str, dict[str, Any]] = field(default_factory=dict)
    reminders_cancelled: set[str] = field(default_factory=set)
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    poison: set[tuple[str, str, int, int]] = field(default_factory=set)
    without_rate: set[str] = field(default_factory=set)

    @classmethod
    @asynccontextmanager
    async def open(cls, kafka: str) -> AsyncIterator["Witness"]:
        """One that has heard nothing yet, and can `read_on` while the block runs."""
        async with Reader(kafka, TOPICS).open() as reader:
            yield cls(reader)

    @classmethod
    async def of(cls, kafka: str) -> "Witness":
        """Read everything that stands in the topics now."""
        async with cls.open(kafka) as witness:
            await witness.read_on()
            return witness

    async def read_on(self) -> None:
        """Read everything that stands in the topics now and was not read before."""
        self.since = time.time()
        while True:
            records = await self.reader.fetch(wait_seconds=0.3)
            for record in records:
                self._hear(record)
            if not records and await self.reader.at_end():
                return

    def _hear(self, record: Record) -> None:
        if injected.is_poison(record.key, record.value) and not self._hear_poison(record):
            return
        envelope = decode_headers(record.headers)
        if envelope.id in self.seen:
            self.repeats += 1
            return
        self.seen.add(envelope.id)
        self.events += 1
        self.lanes[record.topic, envelope.key].append(envelope.id)
        kind = event_class(envelope.type)
        if kind is not None and record.value is not None:
            self._note(kind.event_name, kind.topic, envelope.key, orjson.loads(record.value))

    def _hear_poison(self, record: Record) -> bool:
        """Expect it among the dead letters; whether somebody can make use of it all the same."""
        at = (record.topic, record.partition, record.offset)
        try:
            kind = event_class(decode_headers(record.headers).type)
        except NotAnEvent:
            self.poison |= {(service, *at) for service in injected.NOT_AN_EVENT[record.topic]}
            return False
        if injected.NO_RATE.encode() in (record.value or b""):
            self.poison |= {(service, *at) for service in injected.UNKNOWN_CURRENCY}
            self.without_rate.add(orjson.loads(record.value or b"{}")["deal_id"])
            return True
        self.poison |= {
            (service, *at)
            for known, services in injected.BROKEN_JSON.items()
            if known is kind
            for service in services
        }
        return False

    def _note(self, name: str, topic: str, key: str, data: dict[str, Any]) -> None:
        if topic == "leads":
            self._note_lead(name, data)
        elif name == "deal.closed":
            self.facts[name, data["deal_id"]] += 1
            self.deals_of[key].append(data["deal_id"])
        elif name == "deal.reversed":
            self.facts[name, data["reversal_id"]] += 1
            self.given_back[data["deal_id"]] += data["amount_minor"]
        elif name == "client.created":
            self.facts[name, data["client_id"]] += 1
        elif name.startswith("interaction."):
            self.facts[name, f"{data['interaction_id']}/{data.get('version', 1)}"] += 1
        elif name == "segment.changed":
            self.facts[name, f"{key}/{data['seq']}"] += 1
            self.moves[key].append((data["seq"], data["new_segment"]))
        elif topic == "messages":
            self._note_message(name, data)

    def _note_lead(self, name: str, data: dict[str, Any]) -> None:
        lead = data["lead_id"]
        if name == "lead.received":
            self.facts[name, lead] += 1
            self.lead_clients.add(data["client_id"])
            return
        self.facts[name, f"{lead}/{data['epoch']}"] += 1
        self.leads[lead].append((name, data))

    def _note_message(self, name: str, data: dict[str, Any]) -> None:
        if name == "reminder.scheduled":
            self.reminders[data["reminder_id"]] = data
        elif name == "reminder.cancelled":
            self.reminders_cancelled.add(data["reminder_id"])
        else:
            self.messages.append((name, data))
