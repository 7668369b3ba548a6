"""What notifications reads from its environment besides what every service reads."""

from datetime import timedelta
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AnyHttpUrl, Field, NonNegativeInt, SecretStr, field_validator, model_validator

from libs.shared.settings import ServiceSettings
from services.notifications.mail import sender_of


class NotificationsSettings(ServiceSettings):
    """Where messages go out, where a client can ask for another time, and who tells of openings.

    Attributes:
        webhook_secrets: By source: `whsec_...`, the present one and those being rotated out.
    """

    smtp_url: str = "smtp://127.0.0.1:8025"  # smtp[s]://[user:password@]host[:port]
    mail_from: str = "baza@example.test"  # an address, with a name in front if wanted
    second_channel_url: AnyHttpUrl = AnyHttpUrl("http://127.0.0.1:8000/second-channel/messages")
    second_channel_token: str = ""  # bearer token of the receiver; empty: it asks for none
    reschedule_url: str = ""  # with {interaction_id} in it; empty: messages have no such link
    webhook_secrets: dict[str, list[SecretStr]] = Field(default_factory=dict)
    send_timeout_seconds: Annotated[int, Field(ge=1, le=300)] = 20  # of one attempt
    send_lease_seconds: NonNegativeInt = 60  # then a message whose worker died is taken again

    @field_validator("smtp_url")
    @classmethod
    def _smtp(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise ValueError("must be smtp://host:port or smtps://host:port")
        return url

    @field_validator("mail_from")
    @classmethod
    def _address(cls, text: str) -> str:
        sender_of(text)
        return text

    @field_validator("reschedule_url")
    @classmethod
    def _has_place(cls, url: str) -> str:
        if url and "{interaction_id}" not in url:
            raise ValueError("must have {interaction_id} in it")
        return url

    @model_validator(mode="after")
    def _lease_outlasts_attempt(self) -> Self:
        if self.send_lease_seconds < 2 * self.send_timeout_seconds:
            raise ValueError("send_lease_seconds must be at least twice send_timeout_seconds")
        return self

    @property
    def send_timeout(self) -> timedelta:
        """How long one attempt may take."""
        return timedelta(seconds=self.send_timeout_seconds)

    @property
    def send_lease(self) -> timedelta:
        """How long a message belongs to the worker that took it."""
        return timedelta(seconds=self.send_lease_seconds)
