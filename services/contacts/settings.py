"""What contacts reads from its environment beside what every service reads."""

from pydantic import Field, SecretStr

from libs.shared.settings import ServiceSettings


class ContactsSettings(ServiceSettings):
    """Contacts needs the secrets of those who push webhooks.

    Attributes:
        webhook_secrets: By source: `whsec_...`, the present one and those being rotated out.
    """

    webhook_secrets: dict[str, list[SecretStr]] = Field(default_factory=dict)
