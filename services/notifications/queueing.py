"""Messages that are ready, or cannot be made, become rows of the delivery ledger.

A reminder goes to a client about a meeting, an alert to somebody of the staff; the ledger knows
both. What is tried once more keeps its message. Sending is in `sending.py`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from libs.shared.database import Connection
from services.notifications.rendering import Rendered
from services.notifications.templates import TemplateInForce

_QUEUE = """
    INSERT INTO deliveries (message_id, channel, template, template_version, language, address,
        subject, body, state, reason, staff_id, client_id, reminder_id, interaction_id,
        interaction_version, due_at, settled_at, created_at)
    SELECT t.*, CASE WHEN t.state = 'queued' THEN $16::timestamptz END,
        CASE WHEN t.state <> 'queued' THEN $16::timestamptz END, $16::timestamptz
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::text[],
        $7::text[], $8::text[], $9::text[], $10::text[], $11::uuid[], $12::uuid[], $13::uuid[],
        $14::uuid[], $15::integer[])
        AS t (message_id, channel, template, template_version, language, address, subject, body,
        state, reason, staff_id, client_id, reminder_id, interaction_id, interaction_version)
    ON CONFLICT (message_id) DO UPDATE SET template_version = excluded.template_version,
        language = excluded.language, address = excluded.address, subject = excluded.subject,
        body = excluded.body, state = excluded.state, reason = excluded.reason,
        due_at = excluded.due_at, settled_at = excluded.settled_at, attempts = 0
"""


class Message(NamedTuple):
    """A row of `deliveries`, its members in the order of the statement.

    Attributes:
        state: `queued`, or `failed` with a reason: then nothing goes out.
        staff_id: Who of the staff it goes to; None: it goes to a client, about a meeting.
    """

    message_id: UUID
    channel: str
    template: str
    template_version: int
    language: str
    address: str | None
    subject: str
    body: str
    state: str
    reason: str | None
    staff_id: UUID | None = None
    client_id: UUID | None = None
    reminder_id: UUID | None = None
    interaction_id: UUID | None = None
    interaction_version: int | None = None

    @classmethod
    def ready(
        cls,
        message_id: UUID,
        template: TemplateInForce,
        address: str,
        text: Rendered,
        **about: UUID | int,
    ) -> "Message":
        """One that can go out."""
        return cls(
            message_id,
            template.key.channel,
            template.key.code,
            template.version,
            template.key.language,
            address,
            text.subject,
            text.body,
            "queued",
            None,
            **about,  # type: ignore[arg-type]  # whom and what it is about, by name
        )

    @classmethod
    def failed(
        cls,
        message_id: UUID,
        wanted: tuple[str, str],
        template: TemplateInForce | None,
        reason: str,
        **about: UUID | int,
    ) -> "Message":
        """One that cannot be made; `wanted` are the channel and the template's code."""
        return cls(
            message_id,
            *wanted,
            template.version if template is not None else 0,
            template.key.language if template is not None else "",
            None,
            "",
            "",
            "failed",
            reason,
            **about,  # type: ignore[arg-type]  # whom and what it is about, by name
        )


async def queue(tx: Connection, messages: Sequence[Message], now: datetime) -> None:
    """Write messages into the ledger: due at once, or settled as failed."""
    if messages:
        await tx.execute(_QUEUE, *(list(column) for column in zip(*messages, strict=True)), now)
