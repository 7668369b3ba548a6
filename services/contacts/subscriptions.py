"""What contacts does when the other services speak."""

from libs.shared.events import (
    LeadAssigned,
    LeadClaimed,
    LeadClosed,
    LeadConverted,
    LeadEscalated,
    LeadReleased,
    LeadUnclaimed,
    MessageFailed,
    MessageSent,
    SegmentChanged,
)
from libs.shared.subscriptions import on
from services.contacts.clients.segments_heard import show_segments
from services.contacts.interactions.messages_heard import (
    show_failed_messages,
    show_sent_messages,
)
from services.contacts.leads.routing_heard import (
    note_assigned_leads,
    note_claimed_leads,
    note_closed_leads,
    note_converted_leads,
    note_escalated_leads,
    note_released_leads,
    note_unclaimed_leads,
)

SUBSCRIPTIONS = (
    on(SegmentChanged, show_segments),
    on(LeadAssigned, note_assigned_leads),
    on(LeadClaimed, note_claimed_leads),
    on(LeadUnclaimed, note_unclaimed_leads),
    on(LeadReleased, note_released_leads),
    on(LeadEscalated, note_escalated_leads),
    on(LeadConverted, note_converted_leads),
    on(LeadClosed, note_closed_leads),
    on(MessageSent, show_sent_messages),
    on(MessageFailed, show_failed_messages),
)
