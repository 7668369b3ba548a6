"""A client has opened a message: noted once, at the first time, and said.

However often a provider repeats itself, and in whatever order, the first that is heard stays.
"""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from libs.shared import outbox
from libs.shared.database import Connection
from libs.shared.errors import NotFound
from libs.shared.events import MessageOpened
from libs.shared.field_types import Text50
from libs.shared.policies import Policy

_NOTE = """
    UPDATE deliveries SET opened_at = $2
    WHERE message_id = $1 AND client_id IS NOT NULL AND opened_at IS NULL
    RETURNING client_id, channel, template, interaction_id
"""
_EXISTS = "SELECT EXISTS (SELECT FROM deliveries WHERE message_id = $1)"


class OpeningPolicy(Policy, name="openings"):
    """Which events of providers' reports mean that a message was opened; case does not count."""

    events: Annotated[tuple[Text50, ...], Field(min_length=1, max_length=50)] = (
        "opened",
        "open",
        "clicked",
        "click",
        "read",
    )

    def mean(self, event: str) -> bool:
        """Whether this one does."""
        return event.casefold() in {each.casefold() for each in self.events}


class MessageNotFound(NotFound):
    """There is no message with this id."""

    code = "message-not-found"
    ru = "Такого сообщения нет."


async def note_opened(tx: Connection, message_id: UUID, *, at: datetime, now: datetime) -> bool:
    """Note that a message was opened; False when that was known, or it went to staff.

    Args:
        at: As the provider has it. Its clock may be ahead of ours, nothing was opened after `now`.

    Raises:
        MessageNotFound: No such message was made.
    """
    opened_at = min(at, now)
    row = await tx.fetchrow(_NOTE, message_id, opened_at)
    if row is None:
        if not await tx.fetchval(_EXISTS, message_id):
            raise MessageNotFound
        return False
    event = MessageOpened(
        message_id=message_id, opened_at=opened_at, occurred_at=now, **dict(row.items())
    )
    await outbox.add_all(tx, [event])
    return True
