"""The ASGI app of scoring: `uvicorn services.scoring.main:app`."""

from fastapi import FastAPI

import services.scoring
from libs.shared.dead_letters_api import dead_letters_router
from libs.shared.http import create_app
from services.scoring import (
    api,
    past_api,
    previews_api,
    rescorings_api,
    rule_review_api,
    rules_api,
    value_api,
)
from services.scoring.acquisition import api as acquisition_api
from services.scoring.acquisition.unit_economics import UnitEconomicsPolicy
from services.scoring.audiences import api as audiences_api
from services.scoring.completeness import CompletenessPolicy
from services.scoring.flags import api as flags_api
from services.scoring.flags.policy import FlagPolicy
from services.scoring.rule_review import RuleReviewPolicy
from services.scoring.settings import ScoringSettings
from services.scoring.touches import api as touches_api
from services.scoring.touches import leasing_api
from services.scoring.touches.policy import QueuePolicy
from services.scoring.value_models import ValueModelPolicy


def build(settings: ScoringSettings) -> FastAPI:
    """The app with the given settings."""
    return create_app(
        settings=settings,
        title="scoring",
        description=services.scoring.__doc__ or "",
        routers=[
            api.routes,
            past_api.routes,
            value_api.routes,
            rules_api.routes,
            previews_api.routes,
            rescorings_api.routes,
            rule_review_api.routes,
            touches_api.routes,
            leasing_api.routes,
            flags_api.routes,
            audiences_api.routes,
            acquisition_api.routes,
            dead_letters_router(),
        ],
        policies=[
            QueuePolicy,
            FlagPolicy,
            ValueModelPolicy,
            UnitEconomicsPolicy,
            CompletenessPolicy,
            RuleReviewPolicy,
        ],
    )


def __getattr__(name: str) -> FastAPI:
    # Settings are read when a server asks for `app`, never by a mere import.
    if name == "app":
        return build(ScoringSettings())
    raise AttributeError(name)
