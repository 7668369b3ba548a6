"""What notifications has sent stands in the timeline, beside what people have done.

Nothing is said about it: a message that a machine sends is no touch by a manager.
"""

from collections.abc import Sequence

from libs.shared.database import Connection
from libs.shared.events import MessageFailed, MessageSent

# A message of a client whom we do not know has no timeline to stand in.
_STORE = """
    INSERT INTO interactions (id, client_id, kind, state, direction, at, topic, outcome, reason,
        source, recorded_by, created_at)
    SELECT DISTINCT ON (message) message, client, 'message', 'recorded', 'outgoing', at, template,
        $6, reason, channel, 'notifications', at
    FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $7::text[])
        AS heard (message, client, at, template, channel, reason)
    WHERE EXISTS (SELECT FROM clients WHERE clients.id = client)
    ORDER BY message, at DESC
    ON CONFLICT (id) DO UPDATE SET outcome = excluded.outcome, reason = excluded.reason
    WHERE interactions.outcome <> 'failed'
"""


async def show_sent_messages(messages: Sequence[MessageSent], tx: Connection) -> None:
    """Put messages into the timelines; one that has failed stays failed."""
    await _show(tx, messages, "sent", [None] * len(messages))


async def show_failed_messages(messages: Sequence[MessageFailed], tx: Connection) -> None:
    """Put messages that could not be delivered into the timelines, with the reason."""
    await _show(tx, messages, "failed", [message.reason for message in messages])


async def _show(
    tx: Connection,
    messages: Sequence[MessageSent | MessageFailed],
    outcome: str,
    reasons: Sequence[str | None],
) -> None:
    await tx.execute(
        _STORE,
        [message.message_id for message in messages],
        [message.client_id for message in messages],
        [message.occurred_at for message in messages],
        [message.template for message in messages],
        [message.channel for message in messages],
        outcome,
        reasons,
    )
