"""Which meetings are reminded of, when, by which channel and with which template."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from libs.shared.field_types import Zone
from libs.shared.policies import Policy

Channel = Literal["email", "second_channel"]
Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}$", description="ISO 639")]


class Stage(BaseModel):
    """One reminder before the meeting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: Slug
    minutes_before: Annotated[int, Field(strict=True, ge=1, le=43_200)]
    channel: Channel
    template: Slug


class ReminderPolicy(Policy, name="reminders"):
    """Two stages by default: a mail a day before, a message half an hour before.

    A change holds for meetings that are planned or moved from then on.

    Attributes:
        kinds: Interactions that are reminded of.
        zone: Dates and times in messages are in this zone (IANA name).
        default_language: For clients whose language is unknown or has no template.
        second_channel_order: Where the second channel reaches a client: the first that the
            card has; `phone` is the primary phone, anything else a messenger.
    """

    kinds: Annotated[tuple[Slug, ...], Field(max_length=20)] = ("meeting", "call")
    stages: Annotated[tuple[Stage, ...], Field(max_length=10)] = (
        Stage(
            code="day_before",
            minutes_before=24 * 60,
            channel="email",
            template="meeting_reminder",
        ),
        Stage(
            code="half_hour",
            minutes_before=30,
            channel="second_channel",
            template="meeting_reminder",
        ),
    )
    zone: Zone = "Europe/Moscow"
    default_language: Language = "ru"
    second_channel_order: Annotated[tuple[Slug, ...], Field(min_length=1, max_length=20)] = (
        "phone",
        "telegram",
        "whatsapp",
        "viber",
    )

    @model_validator(mode="after")
    def _codes_differ(self) -> Self:
        codes = [stage.code for stage in self.stages]
        if len(set(codes)) != len(codes):
            raise ValueError("two stages have the same code")
        return self


class SendingPolicy(Policy, name="sending"):
    """How long a message is tried when the provider is away. Waits double up to the longest."""

    max_attempts: Annotated[int, Field(strict=True, ge=1, le=100)] = 12
    first_wait_seconds: Annotated[int, Field(strict=True, ge=1, le=3600)] = 5
    longest_wait_seconds: Annotated[int, Field(strict=True, ge=1, le=86_400)] = 300

    def wait_seconds(self, attempts: int) -> int:
        """How long to wait after so many attempts, at least one."""
        doubled: int = self.first_wait_seconds * 2 ** min(attempts - 1, 20)
        return min(doubled, max(self.longest_wait_seconds, self.first_wait_seconds))
