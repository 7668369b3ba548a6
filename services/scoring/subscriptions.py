"""What scoring does when the other services speak."""

from collections.abc import Sequence

from libs.shared.database import Connection
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
    MessageOpened,
    MessageSent,
    PageViewed,
)
from libs.shared.subscriptions import on
from services.scoring.acquisition.channels import note_channels
from services.scoring.acquisition.reviews import keep_reviews
from services.scoring.clients_heard import keep_cards, put_away, take_back
from services.scoring.engagement_heard import (
    note_opened_messages,
    note_sent_messages,
    note_viewed_pages,
    note_what_was_asked_for,
)
from services.scoring.purchases import (
    closed_deals_at_once,
    score_closed_deals,
    score_reversed_deals,
)
from services.scoring.touches.heard import note_held_meetings, note_recorded_touches


async def note_leads(leads: Sequence[LeadReceived], tx: Connection) -> None:
    """Where clients come from, and what they ask for; a complaint is neither."""
    asking = [lead for lead in leads if lead.kind != "complaint"]
    if asking:
        await note_channels(asking, tx)
        await note_what_was_asked_for(asking, tx)


async def note_interactions(events: Sequence[InteractionRecorded], tx: Connection) -> None:
    """Touches, promises and reviews."""
    await note_recorded_touches(events, tx)
    await keep_reviews(events, tx)


SUBSCRIPTIONS = (
    on(DealClosed, score_closed_deals, at_once=closed_deals_at_once),
    on(DealReversed, score_reversed_deals),
    on(InteractionRecorded, note_interactions),
    on(InteractionHeld, note_held_meetings),
    on(ClientCreated, keep_cards),
    on(ClientChanged, keep_cards),
    on(ClientArchived, put_away),
    on(ClientRestored, take_back),
    on(LeadReceived, note_leads),
    on(MessageSent, note_sent_messages),
    on(MessageOpened, note_opened_messages),
    on(PageViewed, note_viewed_pages),
)
