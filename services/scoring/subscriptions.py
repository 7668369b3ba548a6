"""What scoring does when the other services speak."""

from libs.shared.events import (
    ClientArchived,
    ClientChanged,
    ClientCreated,
    ClientRestored,
    DealClosed,
    DealReversed,
    InteractionHeld,
    InteractionRecorded,
    LeadReceived,
)
from libs.shared.subscriptions import on
from services.scoring.acquisition.channels import note_channels
from services.scoring.clients_heard import keep_cards, put_away, take_back
from services.scoring.purchases import score_closed_deals, score_reversed_deals
from services.scoring.touches.heard import note_held_meetings, note_recorded_touches

SUBSCRIPTIONS = (
    on(DealClosed, score_closed_deals),
    on(DealReversed, score_reversed_deals),
    on(InteractionRecorded, note_recorded_touches),
    on(InteractionHeld, note_held_meetings),
    on(ClientCreated, keep_cards),
    on(ClientChanged, keep_cards),
    on(ClientArchived, put_away),
    on(ClientRestored, take_back),
    on(LeadReceived, note_channels),
)
