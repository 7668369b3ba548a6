"""Records as Kafka would bring them, and a handler that keeps what it was given."""

import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from aiokafka.partitioner import murmur2

from libs.shared.cloudevents import Envelope, encode_headers
from libs.shared.database import Connection, Database
from libs.shared.events import Event, LeadClaimed, LeadReleased
from libs.shared.ids import new_id
from libs.shared.kafka import Record

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
_offsets = itertools.count()

APPLIED = """
    CREATE TABLE IF NOT EXISTS applied (
        id bigint GENERATED ALWAYS AS IDENTITY, event_id uuid, lead_id uuid, epoch int, kind text
    )
"""


def claimed(lead: UUID, epoch: int) -> LeadClaimed:
    return LeadClaimed(
        lead_id=lead, client_id=new_id(), manager_id=new_id(), epoch=epoch, occurred_at=NOON
    )


def released(lead: UUID, epoch: int) -> LeadReleased:
    return LeadReleased(
        lead_id=lead,
        client_id=new_id(),
        manager_id=new_id(),
        epoch=epoch,
        reason="busy",
        occurred_at=NOON,
    )


def partition_of(key: object, partitions: int) -> int:
    """Where every Kafka client puts events of a key."""
    hash_: int = murmur2(str(key).encode()) & 0x7FFFFFFF
    return hash_ % partitions


def record_of(event: Event, *, value: bytes | None = None, partition: int = 0) -> Record:
    """The record that the relay would make of an event; `value` replaces its data."""
    envelope = Envelope(
        id=event.event_id,
        source="/routing",
        type=event.wire_type(),
        time=event.occurred_at,
        key=event.key,
        correlation_id="c-1",
    )
    return Record(
        topic=event.topic,
        partition=partition,
        offset=next(_offsets),
        key=event.key.encode(),
        value=event.model_dump_json().encode() if value is None else value,
        headers=encode_headers(envelope),
        timestamp_ms=int(NOON.timestamp() * 1000),
    )


def keep(refuses: Callable[[Event], bool] = lambda event: False) -> "Keeper":
    return Keeper(refuses)


class Keeper:
    """A handler that writes what it hears into `applied`, and refuses what it is told to."""

    def __init__(self, refuses: Callable[[Event], bool]) -> None:
        self.refuses = refuses
        self.batches: list[int] = []

    async def __call__(
        self, events: Sequence[LeadClaimed] | Sequence[LeadReleased], tx: Connection
    ) -> None:
        self.batches.append(len(events))
        await tx.executemany(
            "INSERT INTO applied (event_id, lead_id, epoch, kind) VALUES ($1, $2, $3, $4)",
            [(e.event_id, e.lead_id, e.epoch, e.event_name) for e in events],
        )
        if any(self.refuses(event) for event in events):
            raise ValueError("this lead is cursed")


async def applied_to(database: Database, lead: UUID) -> list[int]:
    """Epochs of a lead in the order in which they were applied."""
    rows = await database.pool.fetch(
        "SELECT epoch FROM applied WHERE lead_id = $1 ORDER BY id", lead
    )
    return [row["epoch"] for row in rows]
