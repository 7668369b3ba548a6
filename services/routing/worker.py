"""Routing's background work: hear leads, offer them, run their clocks, see who comes and goes."""

from libs.shared.runtime import Worker, run_worker
from services.routing.claim_timeout import CLAIM_TIMEOUT
from services.routing.common_queue import TRYING_AGAIN
from services.routing.managers.attendance import ATTENDANCE
from services.routing.offering import OFFERING
from services.routing.settings import RoutingSettings
from services.routing.subscriptions import SUBSCRIPTIONS
from services.routing.unanswered import UNANSWERED

TIMERS = (OFFERING, CLAIM_TIMEOUT, UNANSWERED, TRYING_AGAIN, ATTENDANCE)

if __name__ == "__main__":
    run_worker(Worker("routing", RoutingSettings(), SUBSCRIPTIONS, TIMERS))
