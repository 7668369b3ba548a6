"""Hearing events: a batch, its effects and the memory of it in one transaction.

A handler gets all new events of one type in a batch, in order for each key, on a connection whose
transaction also records the events' ids in the inbox and takes the events that the handler says in
turn. Only after the commit are the offsets committed to Kafka; a crash in between hears the batch
again, and the inbox lets nothing of it through. An outage is waited for with the partitions paused.
A poison event is found by bisection and laid aside with its reason (`dead_letters.py`); later
events of its key wait behind it, all others go on.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

import structlog
from opentelemetry.trace import SpanKind
from prometheus_client import Counter, Gauge, Histogram

from libs.shared import dead_letters, telemetry
from libs.shared.cloudevents import Envelope, NotAnEvent, decode_headers, event_class
from libs.shared.context import Context
from libs.shared.database import Connection, Database, is_transient
from libs.shared.dead_letters import reason_of
from libs.shared.events import Event
from libs.shared.kafka import Partition, Record, Subscriber

log = structlog.get_logger()

E = TypeVar("E", bound=Event)
Handler = Callable[[Sequence[E], Connection], Awaitable[None]]

FETCH_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 5.0
STOP_SECONDS = 10.0  # the batch in hand may take this long when the process is told to stop

HEARD = Counter("inbox_events_total", "Events applied", ["type"])
REPEATS = Counter("inbox_duplicates_total", "Events that had been applied before")
POISON = Counter("inbox_poison_total", "Events laid aside", ["type"])
BATCH_SECONDS = Histogram("inbox_batch_seconds", "From fetched to committed")
LAG_SECONDS = Gauge("consumer_lag_seconds", "Age of the last record applied, by topic", ["topic"])
PROGRESS = Gauge("consumer_last_progress_seconds", "Unix time of the last batch committed")

_REMEMBER = """
    INSERT INTO inbox (event_id) SELECT id FROM unnest($1::uuid[]) AS id ORDER BY id
    ON CONFLICT DO NOTHING RETURNING event_id
"""


class PoisonFlood(RuntimeError):
    """So many bad events in a row that it is our code that is bad; the process must stop."""


@dataclass(frozen=True, slots=True)
class Subscription(Generic[E]):
    """An event type and what to do with a batch of it."""

    event_type: type[E]
    handler: Handler[E]


def on(event_type: type[E], handler: Handler[E]) -> Subscription[E]:
    """Tie a handler to an event type; the type checker sees that they fit."""
    return Subscription(event_type, handler)


@dataclass(slots=True)
class Heard:
    """A record on its way through the inbox. `event` is None where it could not be read."""

    record: Record
    envelope: Envelope | None
    event: Event | None
    problem: str | None = None

    @property
    def lane(self) -> dead_letters.Lane:
        """Order is kept within one key of one topic."""
        if self.envelope is not None:
            return self.record.topic, self.envelope.key
        return self.record.topic, (self.record.key or b"").decode(errors="replace")

    @property
    def type_name(self) -> str:
        return self.envelope.type if self.envelope else "unreadable"


class Dispatcher:
    """Decodes records and runs the handlers of one service."""

    def __init__(self, subscriptions: Iterable[Subscription[Any]], prefix: str = "") -> None:
        self._handlers: dict[type[Event], Handler[Any]] = {}
        for subscription in subscriptions:
            if subscription.event_type in self._handlers:
                raise TypeError(f"{subscription.event_type.event_name} has two handlers")
            self._handlers[subscription.event_type] = subscription.handler
        self.prefix = prefix

    def topics(self) -> list[str]:
        """The topics to subscribe to, with their prefix."""
        return sorted({self.prefix + event.topic for event in self._handlers})

    def read(self, record: Record) -> Heard | None:
        """Decode a record; None when it is of no interest to this service."""
        try:
            envelope = decode_headers(record.headers)
        except NotAnEvent as error:
            return Heard(record, None, None, str(error))
        cls = event_class(envelope.type)
        if cls is None or cls not in self._handlers or record.value is None:
            return None
        thread = Context(envelope.correlation_id, envelope.causation_id, envelope.traceparent)
        try:
            event = cls.model_validate_json(record.value).received_as(envelope.id, thread)
        except ValueError as error:
            return Heard(record, envelope, None, reason_of(error))
        if event.key != envelope.key:
            return Heard(record, envelope, None, f"key {envelope.key!r} is not the event's own")
        return Heard(record, envelope, event)

    async def handle(self, events: Sequence[Event], tx: Connection) -> None:
        """Run the handler of these events, all of one type."""
        await self._handlers[type(events[0])](events, tx)


def in_rounds(heard: Sequence[Heard]) -> list[list[Heard]]:
    """Group events by type so that each key still sees its events in their order.

    Returns:
        Rounds to be handled one after another, each of one type.
    """
    rounds: list[list[Heard]] = []
    last_round_of_lane: dict[dead_letters.Lane, int] = {}
    open_round_of_type: dict[type[Event | None], int] = {}
    for item in heard:
        kind = type(item.event)
        here = open_round_of_type.get(kind, -1)
        if here < last_round_of_lane.get(item.lane, -1) or here < 0:
            here = len(rounds)
            rounds.append([])
            open_round_of_type[kind] = here
        rounds[here].append(item)
        last_round_of_lane[item.lane] = here
    return rounds


class Inbox:
    """Applies batches of records to a service's database, each batch exactly once."""

    def __init__(
        self, database: Database, dispatcher: Dispatcher, *, poison_limit: int = 100
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._poison_limit = poison_limit
        self._poison_in_a_row = 0

    async def apply(self, records: Sequence[Record]) -> None:
        """Apply a batch and commit; nothing of it stays when this raises.

        Raises:
            PoisonFlood: More than `poison_limit` bad events in a row.
            Exception: Transient ones (`is_transient`); the same batch can be given again.
        """
        heard = [item for record in records if (item := self._dispatcher.read(record))]
        if not heard:
            return
        links = telemetry.links_from(item.envelope.traceparent for item in heard if item.envelope)
        with telemetry.span("inbox batch", kind=SpanKind.CONSUMER, links=links):
            try:
                await self._attempt(heard, carefully=any(h.event is None for h in heard))
            except PoisonFlood:
                raise
            except Exception as error:
                if is_transient(error):
                    raise
                log.warning("batch_refused", reason=reason_of(error), events=len(heard))
                await self._attempt(heard, carefully=True)

    async def _attempt(self, heard: Sequence[Heard], *, carefully: bool) -> None:
        async with self._database.transaction() as tx:
            fresh = await self._only_new(heard, tx)
            parked = await dead_letters.parked(tx, {item.lane for item in fresh})
            if parked:
                await self._lay_behind([item for item in fresh if item.lane in parked], tx)
                fresh = [item for item in fresh if item.lane not in parked]
            if carefully:
                await self._one_by_halves(fresh, tx)
            else:
                for round_ in in_rounds(fresh):
                    await self._dispatcher.handle([h.event for h in round_ if h.event], tx)
        if not carefully and fresh:
            self._poison_in_a_row = 0
        for item in fresh:
            HEARD.labels(item.type_name).inc()

    async def _only_new(self, heard: Sequence[Heard], tx: Connection) -> list[Heard]:
        """Remember the events; those remembered before drop out. Unreadable ones have no id."""
        unique: dict[UUID, Heard] = {}
        for item in heard:
            if item.envelope is not None:
                unique.setdefault(item.envelope.id, item)
        rows = await tx.fetch(_REMEMBER, sorted(unique)) if unique else []
        new_ids = {row["event_id"] for row in rows}
        fresh = [
            item
            for item in heard
            if item.envelope is None
            or (item.envelope.id in new_ids and unique[item.envelope.id] is item)
        ]
        REPEATS.inc(len(heard) - len(fresh))
        return fresh

    async def _lay_behind(self, items: Sequence[Heard], tx: Connection) -> None:
        for item in items:
            await dead_letters.lay_aside(
                tx,
                item.record,
                item.envelope,
                "waiting",
                "an earlier event of this key is laid aside",
            )

    async def _one_by_halves(self, fresh: Sequence[Heard], tx: Connection) -> None:
        """Apply what can be applied, find what cannot, keep each key's order."""
        parked: set[dead_letters.Lane] = set()
        readable = []
        for item in fresh:
            if item.event is None or item.lane in parked:
                await self._lay_aside(item, item.problem, parked, tx)
            else:
                readable.append(item)
        for round_ in in_rounds(readable):
            await self._bisect(round_, parked, tx)

    async def _bisect(
        self, items: Sequence[Heard], parked: set[dead_letters.Lane], tx: Connection
    ) -> None:
        behind = [item for item in items if item.lane in parked]
        for item in behind:
            await self._lay_aside(item, None, parked, tx)
        items = [item for item in items if item.lane not in parked]
        if not items:
            return
        try:
            async with tx.transaction():  # a savepoint
                await self._dispatcher.handle([h.event for h in items if h.event], tx)
        except Exception as error:
            if is_transient(error):
                raise
            if len(items) == 1:
                await self._lay_aside(items[0], reason_of(error), parked, tx)
                return
            middle = len(items) // 2
            await self._bisect(items[:middle], parked, tx)
            await self._bisect(items[middle:], parked, tx)
        else:
            self._poison_in_a_row = 0

    async def _lay_aside(
        self,
        item: Heard,
        reason: str | None,
        parked: set[dead_letters.Lane],
        tx: Connection,
    ) -> None:
        if item.lane in parked:
            await self._lay_behind([item], tx)
            return
        self._poison_in_a_row += 1
        if self._poison_in_a_row > self._poison_limit:
            raise PoisonFlood(f"{self._poison_in_a_row} bad events in a row, last: {reason}")
        if item.envelope is not None:
            parked.add(item.lane)
        POISON.labels(item.type_name).inc()
        log.error(
            "event_laid_aside",
            type=item.type_name,
            reason=reason,
            topic=item.record.topic,
            offset=item.record.offset,
        )
        await dead_letters.lay_aside(
            tx,
            item.record,
            item.envelope,
            "poison",
            reason or "unreadable",
            mirror_prefix=self._dispatcher.prefix,
        )


class Consumer:
    """Feeds an inbox from the service's group, for ever."""

    def __init__(self, subscriber: Subscriber, inbox: Inbox, *, batch: int = 2000) -> None:
        self._subscriber = subscriber
        self._inbox = inbox
        self._batch = batch
        self.ready = False

    async def run(self) -> None:
        """Hear and apply until cancelled; the batch in hand is finished first.

        Raises:
            PoisonFlood: See `Inbox.apply`.
            Exception: A group that cannot be joined.
        """
        async with self._subscriber.joined():
            self.ready = True
            try:
                while True:
                    records = await self._subscriber.fetch(
                        wait_seconds=FETCH_SECONDS, most=self._batch
                    )
                    if records:
                        await self._apply_until_done(records)
            finally:
                self.ready = False

    async def _apply_until_done(self, records: list[Record]) -> None:
        backoff = 0.1
        paused = False
        while records:
            async with self._subscriber.in_hand:
                ours = self._subscriber.assigned()
                records = [r for r in records if (r.topic, r.partition) in ours]
                if not records or await self._finish(records):
                    break
            if not paused:
                self._subscriber.pause()
                paused = True
            # Fetching keeps us in the group; what comes of partitions that joined us meanwhile is
            # kept, because it will not be fetched again.
            records += await self._subscriber.fetch(wait_seconds=backoff, most=1)
            self._subscriber.pause()
            backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
        if paused:
            self._subscriber.resume()

    async def _finish(self, records: Sequence[Record]) -> bool:
        """Try once; a stop waits for it, so that nothing committed is heard again for nothing."""
        attempt = asyncio.create_task(self._try_once(records))
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            await asyncio.wait([attempt], timeout=STOP_SECONDS)
            raise

    async def _try_once(self, records: Sequence[Record]) -> bool:
        started = time.perf_counter()
        try:
            await self._inbox.apply(records)
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("batch_put_off", reason=reason_of(error), records=len(records))
            return False
        await self._subscriber.commit(_next_offsets(records))
        BATCH_SECONDS.observe(time.perf_counter() - started)
        PROGRESS.set(time.time())
        LAG_SECONDS.labels(records[-1].topic).set(
            max(0.0, time.time() - records[-1].timestamp_ms / 1000)
        )
        return True


def _next_offsets(records: Iterable[Record]) -> dict[Partition, int]:
    offsets: dict[Partition, int] = {}
    for record in records:
        at = (record.topic, record.partition)
        offsets[at] = max(offsets.get(at, 0), record.offset + 1)
    return offsets
