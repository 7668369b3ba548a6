"""What a company decides about calling its base."""

from datetime import time
from typing import Annotated

from pydantic import Field

from libs.shared.calendars import Hours
from libs.shared.field_types import Flag
from libs.shared.policies import Policy

Rating = Annotated[int, Field(strict=True, ge=1, le=5)]


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
