"""What a company decides about its leads, beside the distribution rules themselves."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from libs.shared.calendars import Calendar
from libs.shared.field_types import Flag, Instant, Text200
from libs.shared.policies import Policy

Minutes = Annotated[int, Field(strict=True, ge=1, le=10_080)]


class ClaimPolicy(Policy, name="claims"):
    """How long a manager has to claim a lead, and when a lead stops going round.

    Attributes:
        calendar: The hours in which both clocks run; null: around the clock.
        rounds: Times around, then the common queue.
        most_offers: Of one lead before the common queue, however many managers there are.
        most_open_leads: Of one manager who has no capacity of their own.
        touches_per_lead: So many open touches are as much to do as one lead, where leads are given
            by load; null: touches are not looked at.
        queue_again_minutes: After so long the common queue is offered again to whoever is there.
        returning_client_goes_to_owner: If they are there and free; a rule may have it otherwise.
        results_days: How far back conversion counts where leads are given by result.
    """

    claim_window_minutes: Minutes = 15
    alert_minutes: Minutes | None = 3
    calendar: Calendar | None = None
    rounds: Annotated[int, Field(strict=True, ge=1, le=100)] = 1
    most_offers: Annotated[int, Field(strict=True, ge=1, le=1000)] = 20
    most_open_leads: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 1000
    touches_per_lead: Annotated[int, Field(strict=True, ge=1, le=1000)] | None = 10
    queue_again_minutes: Minutes = 30
    returning_client_goes_to_owner: Flag = True
    results_days: Annotated[int, Field(strict=True, ge=1, le=1000)] = 90


Away = Literal["off_shift", "absent", "sick", "paused", "offline", "inactive"]


class PresencePolicy(Policy, name="presence"):
    """Who counts as there, and whose unclaimed leads move at once when they are not.

    Attributes:
        sign_of_life_minutes: A workplace must have been heard of within so long; null: need not.
        moves_unclaimed: Reasons to be away for which unclaimed leads go to others at once.
    """

    sign_of_life_minutes: Minutes | None = None
    moves_unclaimed: Annotated[tuple[Away, ...], Field(max_length=6)] = (
        "off_shift",
        "absent",
        "sick",
        "paused",
        "offline",
        "inactive",
    )


class MutedPeriod(BaseModel):
    """Segments whose leads wait until a season is over; `none` is a client without a segment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    segments: Annotated[tuple[Text200, ...], Field(min_length=1, max_length=50)]
    begins_at: Instant
    ends_at: Instant
    note: Text200 | None = None

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.ends_at <= self.begins_at:
            raise ValueError("a period ends after it begins")
        return self


class MutingPolicy(Policy, name="muting"):
    """Seasons in which some segments are not routed. Their leads are kept and come afterwards.

    Complaints, and those whom a bot hands over, are routed all the same.

    Attributes:
        look_again_minutes: How often it is looked whether a muted lead may go on.
    """

    periods: Annotated[tuple[MutedPeriod, ...], Field(max_length=100)] = ()
    look_again_minutes: Minutes = 10
