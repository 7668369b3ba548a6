"""Every event contract of Baza, in one place.

An event is a fact that one service tells the others: immutable, named in the past tense. Its name,
version, topic and key are class arguments, so what runs and what is documented cannot differ.
Adding an optional field keeps the version; anything else is a new class with the next version,
published beside the old one. `tests/contracts/` holds a golden schema of each, `docs/events.md` and
`docs/asyncapi.json` are made from here. Personal data travels in client.* and interaction.* only.
"""

from datetime import date
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID

import orjson
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
)

from libs.shared.context import Context, current
from libs.shared.ids import Id, new_quick_id

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217")]
Version = Annotated[int, Field(ge=1, description="of the aggregate, grows by one with each change")]


class Event(BaseModel):
    """What all events share.

    Attributes:
        occurred_at: When it became true by the service's clock, aware UTC; not when it was sent.
            Handlers take it for `now`, so that hearing a topic again rebuilds the same state.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")  # ignore: producers may add fields first

    event_name: ClassVar[str]
    event_version: ClassVar[int]
    topic: ClassVar[str]
    key_field: ClassVar[str]
    current_topic: ClassVar[str | None]  # compacted: the last event of every key
    _wire_type: ClassVar[str]
    registry: ClassVar[dict[tuple[str, int], type["Event"]]] = {}

    occurred_at: AwareDatetime

    # Slots, not pydantic's private attributes: those cost more than parsing the event does.
    __slots__ = ("_id", "_thread")

    def __init_subclass__(
        cls,
        *,
        name: str,
        topic: str,
        key: str,
        version: int = 1,
        current: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        if (name, version) in Event.registry:
            raise TypeError(f"{name} v{version} is defined twice")
        cls.event_name, cls.event_version, cls.topic, cls.key_field = name, version, topic, key
        cls.current_topic = current
        cls._wire_type = f"baza.{name}.v{version}"
        Event.registry[name, version] = cls

    def data(self) -> bytes:
        """The event's JSON as it travels: what pydantic would make, in a third of the time."""
        return orjson.dumps(self.__dict__, default=_in_json, option=orjson.OPT_UTC_Z)

    @property
    def event_id(self) -> UUID:
        """What subscribers recognise a repeat by. Not part of the data: it travels as `ce_id`."""
        try:
            known: UUID = object.__getattribute__(self, "_id")
        except AttributeError:
            known = new_quick_id()
            object.__setattr__(self, "_id", known)
        return known

    @property
    def key(self) -> str:
        """Partition key: events of one key keep their order."""
        return str(getattr(self, self.key_field))

    @classmethod
    def wire_type(cls) -> str:
        """The CloudEvents `type`, e.g. `baza.lead.unclaimed.v1`."""
        return cls._wire_type

    def __eq__(self, other: object) -> bool:
        """Whether both state the same fact; their ids and threads may differ."""
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), self.key, self.occurred_at))

    @property
    def thread(self) -> Context | None:
        """Correlation, causation and trace that this event travels with; None: the context's."""
        try:  # not getattr(): pydantic would look for the missing slot in all its own places
            known: Context | None = object.__getattribute__(self, "_thread")
        except AttributeError:
            known = None
        return known

    def received_as(self, event_id: UUID, thread: Context) -> Self:
        """This event with the id and thread it came with."""
        object.__setattr__(self, "_id", event_id)
        object.__setattr__(self, "_thread", thread)
        return self

    def caused_by(self, cause: "Event") -> Self:
        """This event as an effect of another: it goes on in that one's correlation and trace."""
        before = cause.thread or current()
        thread = Context(before.correlation_id, cause.event_id, before.traceparent)
        object.__setattr__(self, "_thread", thread)
        return self


def _in_json(value: object) -> object:
    return value.__dict__ if isinstance(value, BaseModel) else str(value)


# contacts: client cards ------------------------------------------------------------------------


class ClientCard(BaseModel):
    """What other services may need of a card. Personal data."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str  # person, sole_proprietor, legal_entity
    full_name: str
    short_name: str | None = None
    status: str  # lead, active, paused, former
    owner_id: Id | None = None  # the responsible manager
    phones: list[str] = []  # E.164, the primary one first
    email: str | None = None
    messengers: dict[str, str] = {}  # telegram, whatsapp ... -> profile
    city: str | None = None
    language: str | None = None
    tags: list[str] = []


class ClientCreated(Event, name="client.created", topic="clients", key="client_id"):
    """A client card was made."""

    client_id: Id
    version: Version
    card: ClientCard


class ClientChanged(Event, name="client.changed", topic="clients", key="client_id"):
    """A client card changed; carries the whole card as it is now."""

    client_id: Id
    version: Version
    card: ClientCard
    changed: list[str]  # names of the changed members of the card


class ClientArchived(Event, name="client.archived", topic="clients", key="client_id"):
    """A client card was put away; everything is kept and it can be restored."""

    client_id: Id
    version: Version
    reason: str


class ClientRestored(Event, name="client.restored", topic="clients", key="client_id"):
    """An archived client card is in use again."""

    client_id: Id
    version: Version


# contacts: interactions ------------------------------------------------------------------------


class Promised(BaseModel):
    """What was promised to a client, and until which day. Personal data."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str
    due_on: date


class InteractionRecorded(
    Event, name="interaction.recorded", topic="interactions", key="client_id"
):
    """Something happened between a client and the company."""

    interaction_id: Id
    client_id: Id
    kind: str  # call, meeting, message, letter, visit, complaint, review, note
    direction: str  # incoming, outgoing, none
    manager_id: Id | None = None
    happened_at: AwareDatetime
    topic_text: str = ""
    promises: list[Promised] = []
    rating: Annotated[int, Field(ge=1, le=5)] | None = None  # of a review, 5 is best


class PageViewed(Event, name="page.viewed", topic="interactions", key="client_id"):
    """A client whom the site knows has looked at a page."""

    client_id: Id
    site: str  # domain, lower case
    page: str  # path without query and fragment
    viewed_at: AwareDatetime


class InteractionPlanned(Event, name="interaction.planned", topic="interactions", key="client_id"):
    """A meeting or call was planned."""

    interaction_id: Id
    client_id: Id
    version: Version
    kind: str
    manager_id: Id | None = None
    starts_at: AwareDatetime
    topic_text: str = ""


class InteractionMoved(Event, name="interaction.moved", topic="interactions", key="client_id"):
    """A planned meeting or call got another time."""

    interaction_id: Id
    client_id: Id
    version: Version
    kind: str
    manager_id: Id | None = None
    previous_starts_at: AwareDatetime
    starts_at: AwareDatetime
    topic_text: str = ""
    reason: str = ""


class InteractionCancelled(
    Event, name="interaction.cancelled", topic="interactions", key="client_id"
):
    """A planned meeting or call will not happen."""

    interaction_id: Id
    client_id: Id
    version: Version
    reason: str


class InteractionHeld(Event, name="interaction.held", topic="interactions", key="client_id"):
    """A planned meeting or call took place."""

    interaction_id: Id
    client_id: Id
    version: Version
    kind: str
    manager_id: Id | None = None
    held_at: AwareDatetime
    outcome: str = ""


# contacts: deals -------------------------------------------------------------------------------


class DealOpened(Event, name="deal.opened", topic="deals", key="client_id"):
    """A deal began."""

    deal_id: Id
    client_id: Id
    pipeline: str
    stage: str
    manager_id: Id | None = None


class DealStageChanged(Event, name="deal.stage_changed", topic="deals", key="client_id"):
    """A deal moved in its pipeline."""

    deal_id: Id
    client_id: Id
    pipeline: str
    previous_stage: str
    stage: str
    manager_id: Id | None = None


class DealClosed(Event, name="deal.closed", topic="deals", key="client_id"):
    """A deal was won and its amount is final."""

    deal_id: Id
    client_id: Id
    closed_at: AwareDatetime  # when the purchase was made; may lie before occurred_at
    amount_minor: NonNegativeInt  # in the currency's minor unit: 1999 is 19.99
    currency: Currency
    manager_id: Id | None = None


class DealLost(Event, name="deal.lost", topic="deals", key="client_id"):
    """A deal was closed without a purchase."""

    deal_id: Id
    client_id: Id
    closed_at: AwareDatetime
    reason: str
    manager_id: Id | None = None


class DealReversed(Event, name="deal.reversed", topic="deals", key="client_id"):
    """A purchase was returned, wholly or in part."""

    reversal_id: Id
    deal_id: Id
    client_id: Id
    reversed_at: AwareDatetime
    amount_minor: NonNegativeInt  # given back by this reversal, in the deal's currency
    currency: Currency
    is_full: bool  # True: the purchase no longer counts at all
    reason: str


# leads -----------------------------------------------------------------------------------------


class LeadReceived(Event, name="lead.received", topic="leads", key="lead_id"):
    """Somebody asked for contact."""

    lead_id: Id
    client_id: Id
    source: str  # the form, number or account it came by
    channel: str  # form, phone, messenger, email, visit, api
    is_returning: bool  # the client was known before
    city: str | None = None
    language: str | None = None
    product: str | None = None
    owner_id: Id | None = None  # the client's manager, if there is one
    region: str | None = None  # of the client, as they told it
    domain: str | None = None  # of the site, lower case
    phone_country: str | None = None  # ISO 3166, of the phone; never the phone itself
    phone_region: str | None = None  # by the phone's code, in Russian
    utm: dict[str, str] = {}  # source, medium, campaign, term, content
    amount_minor: NonNegativeInt | None = None  # what it may bring, in the currency's minor unit
    currency: Currency | None = None
    complexity: str | None = None  # typical, complex
    kind: str = "request"  # request, handoff (by a bot), complaint
    interaction_id: Id | None = None  # what was said before: the bot's talk, the complaint


class LeadAssigned(Event, name="lead.assigned", topic="leads", key="lead_id"):
    """A lead was offered to one manager."""

    lead_id: Id
    client_id: Id
    manager_id: Id
    epoch: PositiveInt  # 1 for the first offer; whatever carries a lower one is stale
    claim_until: AwareDatetime
    reason: str


class LeadClaimed(Event, name="lead.claimed", topic="leads", key="lead_id"):
    """The manager took the lead that was offered."""

    lead_id: Id
    client_id: Id
    manager_id: Id
    epoch: PositiveInt


class LeadUnclaimed(Event, name="lead.unclaimed", topic="leads", key="lead_id"):
    """A manager let the time to claim a lead pass."""

    lead_id: Id
    client_id: Id
    manager_id: Id  # who was offered it
    epoch: PositiveInt  # of the offer that lapsed


class LeadReleased(Event, name="lead.released", topic="leads", key="lead_id"):
    """A manager gave a lead back, or it was taken from them, for the reason that is told."""

    lead_id: Id
    client_id: Id
    manager_id: Id
    epoch: PositiveInt
    reason: str


class LeadEscalated(Event, name="lead.escalated", topic="leads", key="lead_id"):
    """Nobody is left to offer a lead to; it waits in the common queue."""

    lead_id: Id
    client_id: Id
    epoch: NonNegativeInt  # of the last offer; 0 when it was never offered
    reason: str


class LeadUnanswered(Event, name="lead.unanswered", topic="leads", key="lead_id"):
    """Nobody has taken a lead for so long that somebody should look."""

    lead_id: Id
    client_id: Id
    manager_id: Id | None = None  # whose turn it is; null: nobody's yet
    epoch: NonNegativeInt  # of the current or last offer
    received_at: AwareDatetime


class LeadConverted(Event, name="lead.converted", topic="leads", key="lead_id"):
    """The manager made a deal of a lead; it is nobody's load any more."""

    lead_id: Id
    client_id: Id
    manager_id: Id
    epoch: PositiveInt
    deal_id: Id | None = None
    is_returning: bool  # the client was known before


class LeadClosed(Event, name="lead.closed", topic="leads", key="lead_id"):
    """A lead came to nothing: spam, a mistake, no interest."""

    lead_id: Id
    client_id: Id
    manager_id: Id | None = None  # who held it, if anybody
    epoch: NonNegativeInt
    reason: str  # spam, error, duplicate, lost
    is_returning: bool


# scoring ---------------------------------------------------------------------------------------


class SegmentChanged(
    Event,
    name="segment.changed",
    topic="segments",
    key="client_id",
    current="segments.current",
):
    """A client moved to another segment.

    The same message stands in the compacted topic `segments.current`: who starts from nothing
    reads that once and goes on from `segments`.
    """

    client_id: Id
    seq: PositiveInt  # 1, 2, 3 ... for each client, without gaps
    old_segment: str | None = None
    new_segment: str | None = None  # null: the client has no purchase left and so no segment
    recency_score: Annotated[int, Field(ge=1, le=5)] | None = None  # 5 is best
    frequency_score: Annotated[int, Field(ge=1, le=5)] | None = None
    monetary_score: Annotated[int, Field(ge=1, le=5)] | None = None
    rule_version: PositiveInt
    as_of: date  # the company's day for which the scores hold
    reason: str  # purchase, reversal, ageing, rules, rescoring, override


class TouchDue(Event, name="touch.due", topic="touches", key="client_id"):
    """The working day has begun on which somebody has to speak with a client."""

    client_id: Id
    touch_no: PositiveInt  # counts a client's touches; whatever tells of a lower one is stale
    manager_id: Id | None = None  # the client's own; null: whoever takes it from the common queue
    segment: str
    priority: PositiveInt  # 1 is called first
    due_on: date


class TouchOverdue(Event, name="touch.overdue", topic="touches", key="client_id"):
    """The working day is over on which somebody had to speak with a client, and nobody has."""

    client_id: Id
    touch_no: PositiveInt
    manager_id: Id | None = None
    segment: str
    priority: PositiveInt
    due_on: date


class TouchEnded(Event, name="touch.ended", topic="touches", key="client_id"):
    """A touch that was due is over: somebody has spoken with the client, or need not any more."""

    client_id: Id
    touch_no: PositiveInt
    manager_id: Id | None = None  # who has spoken; where nobody has, the client's own
    segment: str
    due_on: date
    outcome: str  # kept, late, void


class AudienceEntered(Event, name="audience.entered", topic="audiences", key="client_id"):
    """A client belongs to an audience from now on."""

    client_id: Id
    audience: str  # its code
    audience_version: PositiveInt  # of the conditions
    seq: PositiveInt  # counts this client's entering and leaving of this audience; odd: entered


class AudienceLeft(Event, name="audience.left", topic="audiences", key="client_id"):
    """A client does not belong to an audience any more."""

    client_id: Id
    audience: str
    audience_version: PositiveInt
    seq: PositiveInt  # even


class RulesActivated(Event, name="rules.activated", topic="rules", key="rule_version"):
    """Another RFM rule set is in force."""

    rule_version: PositiveInt
    previous_version: PositiveInt | None = None
    activated_by: str


# notifications ---------------------------------------------------------------------------------


class ReminderScheduled(Event, name="reminder.scheduled", topic="messages", key="client_id"):
    """A reminder was planned for a meeting or call."""

    reminder_id: Id
    client_id: Id
    interaction_id: Id
    interaction_version: Version
    stage: str
    channel: str
    due_at: AwareDatetime


class ReminderCancelled(Event, name="reminder.cancelled", topic="messages", key="client_id"):
    """A planned reminder will not be sent: moved, cancelled, held."""

    reminder_id: Id
    client_id: Id
    interaction_id: Id
    interaction_version: Version
    reason: str


class MessageSent(Event, name="message.sent", topic="messages", key="client_id"):
    """A provider took over a message."""

    message_id: Id
    client_id: Id
    channel: str  # email, second_channel
    template: str
    interaction_id: Id | None = None


class MessageFailed(Event, name="message.failed", topic="messages", key="client_id"):
    """A message could not be delivered and will not be tried again."""

    message_id: Id
    client_id: Id
    channel: str
    template: str
    interaction_id: Id | None = None
    reason: str


class MessageOpened(Event, name="message.opened", topic="messages", key="client_id"):
    """A client has opened a message, for the first time."""

    message_id: Id
    client_id: Id
    channel: str
    template: str
    interaction_id: Id | None = None
    opened_at: AwareDatetime  # as the provider has it; may lie before occurred_at


TOPICS: tuple[str, ...] = tuple(sorted({event.topic for event in Event.registry.values()}))
COMPACTED_TOPICS: tuple[str, ...] = tuple(
    sorted({event.current_topic for event in Event.registry.values() if event.current_topic})
)
