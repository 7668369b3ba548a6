"""What notifications does when contacts, routing and scoring speak."""

from collections.abc import Sequence

from libs.shared.database import Connection
from libs.shared.events import (
    ClientChanged,
    ClientCreated,
    InteractionCancelled,
    InteractionHeld,
    InteractionMoved,
    InteractionPlanned,
    InteractionRecorded,
    LeadClaimed,
    LeadClosed,
    LeadConverted,
    LeadUnanswered,
    TouchDue,
    TouchOverdue,
)
from libs.shared.subscriptions import on
from services.notifications.clients import keep_cards
from services.notifications.reminders import (
    cancel_reminders,
    drop_reminders_of_held,
    move_reminders,
    plan_reminders,
)
from services.notifications.staff.alerts import (
    alert_of_touches,
    alert_of_unanswered_leads,
    call_off_held,
    call_off_leads,
    call_off_recorded,
)


async def take_note_of_held(events: Sequence[InteractionHeld], tx: Connection) -> None:
    """A meeting that took place needs no reminder, and was a touch."""
    await drop_reminders_of_held(events, tx)
    await call_off_held(events, tx)


SUBSCRIPTIONS = (
    on(ClientCreated, keep_cards),
    on(ClientChanged, keep_cards),
    on(InteractionPlanned, plan_reminders),
    on(InteractionMoved, move_reminders),
    on(InteractionCancelled, cancel_reminders),
    on(InteractionHeld, take_note_of_held),
    on(InteractionRecorded, call_off_recorded),
    on(LeadUnanswered, alert_of_unanswered_leads),
    on(LeadClaimed, call_off_leads),
    on(LeadConverted, call_off_leads),
    on(LeadClosed, call_off_leads),
    on(TouchDue, alert_of_touches),
    on(TouchOverdue, alert_of_touches),
)
