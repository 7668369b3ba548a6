"""What routing does when the other services speak."""

from libs.shared.events import LeadReceived
from libs.shared.subscriptions import on
from services.routing.leads_intake import take_in_leads

SUBSCRIPTIONS = (on(LeadReceived, take_in_leads),)
