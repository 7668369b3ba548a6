"""What a company decides about its leads."""

from typing import Annotated

from pydantic import Field

from libs.shared.field_types import Flag
from libs.shared.policies import Policy


class ClaimPolicy(Policy, name="claims"):
    """How long a manager has to claim a lead, and when a lead stops going round."""

    claim_window_minutes: Annotated[int, Field(strict=True, ge=1, le=10_080)] = 15
    rounds: Annotated[int, Field(strict=True, ge=1, le=100)] = (
        1  # times around, then the common queue
    )
    most_open_leads: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 1000  # of one manager
    returning_client_goes_to_owner: Flag = True  # if on shift
