"""Somebody mended the address or the template and asks for a failed message to be tried again.

Its reminder, or its alerts, become due once more; the text is made anew from what is known now and
goes out under the same id. A message that would be wrong by now stays as it is.
"""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared.errors import Conflict
from services.notifications.models import Delivery

_STANDS = text(
    "SELECT 1 FROM meetings WHERE interaction_id = :interaction_id AND state = 'planned'"
    " AND version = :version AND starts_at > :now FOR SHARE"
)
_DUE_AGAIN = text(
    "UPDATE reminders SET state = 'planned', due_at = :now, reason = NULL, changed_at = :now"
    " WHERE reminder_id = :reminder_id AND state IN ('failed', 'unknown') RETURNING reminder_id"
)
_ALERTS_DUE_AGAIN = text(
    "UPDATE alerts SET state = 'planned', due_at = :now, reason = NULL, changed_at = :now"
    " WHERE message_id = :message_id AND state IN ('failed', 'unknown') AND over_at IS NULL"
    " AND stale_at > :now RETURNING alert_id"
)


class DeliverySettled(Conflict):
    """Only a message that failed can be tried again."""

    code = "delivery-settled"
    ru = "Повторить можно только неудавшееся сообщение."


class DeliveryOutdated(Conflict):
    """The meeting was moved, cancelled or has begun, or somebody has acted: it would be wrong."""

    code = "delivery-outdated"
    ru = (
        "Встреча перенесена, отменена или уже началась, либо делом уже занялись;"
        " это сообщение было бы неверным."
    )


async def try_again(session: AsyncSession, delivery: Delivery, *, now: datetime) -> None:
    """Make the reminder or the alerts of a failed message due at once.

    Raises:
        DeliverySettled: It did not fail, or is being tried again already.
        DeliveryOutdated: As it says.
    """
    if delivery.state not in ("failed", "unknown"):
        raise DeliverySettled(message_id=str(delivery.message_id), state=delivery.state)
    if delivery.staff_id is not None:
        values = {"message_id": delivery.message_id, "now": now}
        if (await session.execute(_ALERTS_DUE_AGAIN, values)).first() is None:
            raise DeliveryOutdated(message_id=str(delivery.message_id))
        return
    standing = await session.execute(
        _STANDS,
        {
            "interaction_id": delivery.interaction_id,
            "version": delivery.interaction_version,
            "now": now,
        },
    )
    if standing.first() is None:
        raise DeliveryOutdated(message_id=str(delivery.message_id))
    again = await session.execute(_DUE_AGAIN, {"reminder_id": delivery.reminder_id, "now": now})
    if again.first() is None:
        raise DeliverySettled(message_id=str(delivery.message_id), state=delivery.state)
