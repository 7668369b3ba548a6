"""What contacts does when the other services speak."""

from libs.shared.events import SegmentChanged
from libs.shared.inbox import on
from services.contacts.clients.segments_heard import show_segments

SUBSCRIPTIONS = (on(SegmentChanged, show_segments),)
