"""Scoring's background work: hear events, send the outbox, age clients, rescore, plan touches."""

from libs.shared.runtime import Worker, run_worker
from services.scoring.ageing import AGEING
from services.scoring.audiences.membership import AUDIENCE_CLOCK, AUDIENCE_COUNT
from services.scoring.purchase_count import fold_purchase_counts
from services.scoring.rescoring import RESCORING
from services.scoring.rule_change import NEW_RULES
from services.scoring.settings import ScoringSettings
from services.scoring.subscriptions import SUBSCRIPTIONS
from services.scoring.touches.planning import PLANNING, REPLANNING
from services.scoring.touches.touch_clock import TOUCH_CLOCK
from services.scoring.value_models import fit_value_models

EXTRAS = (fold_purchase_counts, fit_value_models)
TIMERS = (
    AGEING,
    NEW_RULES,
    RESCORING,
    PLANNING,
    REPLANNING,
    TOUCH_CLOCK,
    AUDIENCE_CLOCK,
    AUDIENCE_COUNT,
)

if __name__ == "__main__":
    run_worker(Worker("scoring", ScoringSettings(), SUBSCRIPTIONS, TIMERS, extras=EXTRAS))
