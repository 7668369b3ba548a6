"""What notifications does when contacts speaks."""

from libs.shared.events import (
    ClientChanged,
    ClientCreated,
    InteractionCancelled,
    InteractionHeld,
    InteractionMoved,
    InteractionPlanned,
)
from libs.shared.subscriptions import on
from services.notifications.clients import keep_cards
from services.notifications.reminders import (
    cancel_reminders,
    drop_reminders_of_held,
    move_reminders,
    plan_reminders,
)

SUBSCRIPTIONS = (
    on(ClientCreated, keep_cards),
    on(ClientChanged, keep_cards),
    on(InteractionPlanned, plan_reminders),
    on(InteractionMoved, move_reminders),
    on(InteractionCancelled, cancel_reminders),
    on(InteractionHeld, drop_reminders_of_held),
)
