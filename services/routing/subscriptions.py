"""What routing does when the other services speak."""

from libs.shared.events import LeadReceived, SegmentChanged
from libs.shared.subscriptions import on
from services.routing.leads_intake import take_in_leads
from services.routing.rules.segments_heard import note_segments

SUBSCRIPTIONS = (on(LeadReceived, take_in_leads), on(SegmentChanged, note_segments))
