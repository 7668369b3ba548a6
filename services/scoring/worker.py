"""Scoring's background work: hear events, send the outbox, age clients, rescore."""

from libs.shared.runtime import Worker, run_worker
from services.scoring.ageing import AGEING
from services.scoring.rescoring import RESCORING
from services.scoring.rule_change import NEW_RULES
from services.scoring.settings import ScoringSettings
from services.scoring.subscriptions import SUBSCRIPTIONS

TIMERS = (AGEING, NEW_RULES, RESCORING)

if __name__ == "__main__":
    run_worker(Worker("scoring", ScoringSettings(), SUBSCRIPTIONS, TIMERS))
