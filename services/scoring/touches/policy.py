"""What a company decides about calling its base."""

from datetime import date, time
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from libs.shared.calendars import Hours
from libs.shared.field_types import CalendarDay, Code, Flag, Text200
from libs.shared.policies import Policy

Rating = Annotated[int, Field(strict=True, ge=1, le=5)]


class MutedSeason(BaseModel):
    """Segments whose clients are not called for a season, both days included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    segments: Annotated[tuple[Code, ...], Field(min_length=1, max_length=50)]
    first_day: CalendarDay
    last_day: CalendarDay
    note: Text200 | None = None

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.last_day < self.first_day:
            raise ValueError("a season ends after it begins")
        return self


class QueuePolicy(Policy, name="queue"):
    """How managers call the base: whom they get, for how long, and how much of their day.

    Attributes:
        lease_minutes: So long nobody else gets a client that a manager was given.
        common_queue: Whether clients without an owner are given to whoever asks.
        slots: Parts of the day, in the rule set's zone, that are meant for the base.
        minutes_a_touch: What one call takes, so how many fit into the slots.
        ends_with_the_budget: Whether `next` gives nobody once the day's calls are done.
        urgent_up_to_priority: Overdue clients of segments up to this priority are urgent.
        upsell_recency, upsell_frequency: From these ratings on a client may buy more ...
        upsell_monetary: ... if their rating of money is not above this.
        muted: Seasons in which some segments are not called; touches are planned all the same.
    """

    lease_minutes: Annotated[int, Field(strict=True, ge=1, le=1440)] = 15
    common_queue: Flag = True
    slots: Annotated[tuple[Hours, ...], Field(max_length=10)] = (
        Hours(opens_at=time(10), closes_at=time(12)),
    )
    minutes_a_touch: Annotated[int, Field(strict=True, ge=1, le=480)] = 6
    ends_with_the_budget: Flag = False
    urgent_up_to_priority: Annotated[int, Field(strict=True, ge=0, le=1000)] = 3
    upsell_recency: Rating = 4
    upsell_frequency: Rating = 4
    upsell_monetary: Rating = 3
    muted: Annotated[tuple[MutedSeason, ...], Field(max_length=100)] = ()

    def muted_on(self, day: date) -> list[str]:
        """The segments that are not called on a day."""
        seasons = (season for season in self.muted if season.first_day <= day <= season.last_day)
        return sorted({segment for season in seasons for segment in season.segments})
