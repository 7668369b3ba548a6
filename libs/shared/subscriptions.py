"""What a service subscribes to: event types, their handlers, and how records become events.

A handler gets a batch of one event type. Events of several types are cut into rounds, so that each
lane (one key of one topic) still sees its own in their order.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from libs.shared import dead_letters
from libs.shared.at_once import Statement
from libs.shared.cloudevents import Envelope, NotAnEvent, decode_headers
from libs.shared.context import Context
from libs.shared.database import Connection
from libs.shared.dead_letters import reason_of
from libs.shared.events import Event
from libs.shared.kafka import Record

E = TypeVar("E", bound=Event)
Handler = Callable[[Sequence[E], Connection], Awaitable[None]]
AtOnce = Callable[[Sequence[E]], Statement | None]


@dataclass(frozen=True, slots=True)
class Subscription(Generic[E]):
    """An event type and what to do with a batch of it."""

    event_type: type[E]
    handler: Handler[E]
    at_once: "AtOnce[E] | None" = None


def on(
    event_type: type[E], handler: Handler[E], *, at_once: "AtOnce[E] | None" = None
) -> Subscription[E]:
    """Tie a handler to an event type; the type checker sees that they fit.

    Args:
        at_once: The same for a few events as one statement that fails with a division by zero where
            it cannot do all that the handler would; None where there is no such statement now.
    """
    return Subscription(event_type, handler, at_once)


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
        self._at_once: dict[type[Event], AtOnce[Any]] = {}
        for subscription in subscriptions:
            if subscription.event_type in self._handlers:
                raise TypeError(f"{subscription.event_type.event_name} has two handlers")
            self._handlers[subscription.event_type] = subscription.handler
            if subscription.at_once is not None:
                self._at_once[subscription.event_type] = subscription.at_once
        # What `model_validate_json` calls in the end; half of its time went before that.
        self._readers: dict[str, Callable[[bytes], Event]] = {
            cls.wire_type(): cls.__pydantic_validator__.validate_json for cls in self._handlers
        }
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
        read = self._readers.get(envelope.type)
        if read is None or record.value is None:
            return None
        thread = Context(envelope.correlation_id, envelope.causation_id, envelope.traceparent)
        try:
            event = read(record.value).received_as(envelope.id, thread)
        except ValueError as error:
            return Heard(record, envelope, None, reason_of(error))
        if event.key != envelope.key:
            return Heard(record, envelope, None, f"key {envelope.key!r} is not the event's own")
        return Heard(record, envelope, event)

    async def handle(self, events: Sequence[Event], tx: Connection) -> None:
        """Run the handler of these events, all of one type."""
        await self._handlers[type(events[0])](events, tx)

    def at_once(self, events: Sequence[Event]) -> Statement | None:
        """What `handle` would do as one statement, if there is one."""
        make = self._at_once.get(type(events[0]))
        if make is None or len({type(event) for event in events}) > 1:
            return None
        return make(events)


def in_rounds(heard: Sequence[Heard]) -> list[list[Heard]]:
    """Group events by type so that each key still sees its events in their order.

    Returns:
        Rounds to be handled one after another, each of one type.
    """
    if len({type(item.event) for item in heard}) == 1:  # as nearly always
        return [list(heard)]
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
