"""What notifications does when contacts, routing and scoring speak."""

from libs.shared.events import (
    ClientChanged,
    ClientCreated,
    InteractionCancelled,
    InteractionHeld,
    InteractionMoved,
    InteractionPlanned,
    LeadClaimed,
    LeadClosed,
    LeadConverted,
    LeadUnanswered,
    TouchDue,
    TouchEnded,
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
    call_off_ended_touches,
    call_off_leads,
)

SUBSCRIPTIONS = (
    on(ClientCreated, keep_cards),
    on(ClientChanged, keep_cards),
    on(InteractionPlanned, plan_reminders),
    on(InteractionMoved, move_reminders),
    on(InteractionCancelled, cancel_reminders),
    on(InteractionHeld, drop_reminders_of_held),
    on(LeadUnanswered, alert_of_unanswered_leads),
    on(LeadClaimed, call_off_leads),
    on(LeadConverted, call_off_leads),
    on(LeadClosed, call_off_leads),
    on(TouchDue, alert_of_touches),
    on(TouchOverdue, alert_of_touches),
    on(TouchEnded, call_off_ended_touches),
)
