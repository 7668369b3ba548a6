"""What routing does when the other services speak."""

from libs.shared.events import LeadReceived, SegmentChanged, TouchDue, TouchEnded, TouchOverdue
from libs.shared.subscriptions import on
from services.routing.leads_intake import take_in_leads
from services.routing.rules.segments_heard import note_segments
from services.routing.touches_heard import note_due_touches, note_ended_touches

SUBSCRIPTIONS = (
    on(LeadReceived, take_in_leads),
    on(SegmentChanged, note_segments),
    on(TouchDue, note_due_touches),
    on(TouchOverdue, note_due_touches),
    on(TouchEnded, note_ended_touches),
)
