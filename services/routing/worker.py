"""Routing's background work: hear leads, offer them, sweep claim windows, begin shifts."""

from libs.shared.runtime import Worker, run_worker
from services.routing.claim_timeout import CLAIM_TIMEOUT
from services.routing.offering import OFFERING
from services.routing.settings import RoutingSettings
from services.routing.shifts import CALENDAR_OPENINGS, SHIFT_BEGINNINGS
from services.routing.subscriptions import SUBSCRIPTIONS

TIMERS = (OFFERING, CLAIM_TIMEOUT, SHIFT_BEGINNINGS, CALENDAR_OPENINGS)

if __name__ == "__main__":
    run_worker(Worker("routing", RoutingSettings(), SUBSCRIPTIONS, TIMERS))
