"""What is known of a lead when somebody is chosen for it."""

from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any
from uuid import UUID


@dataclass(slots=True)
class LeadFacts:
    """Everything that a decision may look at.

    Attributes:
        epoch: Of the last offer; 0: never offered.
        asked: Who let it pass or gave it back in this round.
        hops: Offers since it came in or was last taken out of the common queue.
        segment: The client's, as scoring told it last.
    """

    lead_id: UUID
    client_id: UUID
    epoch: int = 0
    round: int = 1
    hops: int = 0
    asked: list[UUID] = field(default_factory=list)
    owner_id: UUID | None = None
    is_returning: bool = False
    source: str = ""
    channel: str = ""
    region: str | None = None
    city: str | None = None
    phone_country: str | None = None
    phone_region: str | None = None
    domain: str | None = None
    product: str | None = None
    language: str | None = None
    utm: dict[str, str] = field(default_factory=dict)
    amount_minor: int | None = None
    complexity: str | None = None
    kind: str = "request"
    segment: str | None = None

    @classmethod
    def recorded(cls, told: dict[str, Any]) -> "LeadFacts":
        """As a record has it, with ids as text and members left out that were empty."""
        ids = {name: UUID(told[name]) for name in ("lead_id", "client_id")}
        owner = told.get("owner_id")
        asked = [UUID(each) for each in told.get("asked", ())]
        return cls(**{**told, **ids, "asked": asked, "owner_id": UUID(owner) if owner else None})

    def record(self) -> dict[str, Any]:
        """For a record: what is not as it is by default."""
        told = {
            name: value
            for name, default, value in zip(_NAMES, _DEFAULTS, _values(self), strict=True)
            if value != default
        }
        return {"lead_id": self.lead_id, "client_id": self.client_id, **told}


FACTS = tuple(each.name for each in fields(LeadFacts))
_NAMES = FACTS[2:]  # every lead has its two ids
_DEFAULTS: tuple[Any, ...] = tuple(
    {"asked": [], "utm": {}}.get(each.name, each.default) for each in fields(LeadFacts)[2:]
)
_values = attrgetter(*_NAMES)
