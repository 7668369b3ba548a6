"""What a company decides about flags."""

from typing import Annotated

from pydantic import Field

from libs.shared.field_types import Code, Text200
from libs.shared.policies import Policy

REASONS = {
    "buys_elsewhere": "Покупает и в другом месте",
    "one_large_purchase": "Одна крупная покупка исказила сумму",
    "unstable_history": "История покупок нерегулярна",
    "season": "Сезонный клиент",
    "wrong_data": "В карточке или покупках ошибка",
    "other": "Другое",
}


class FlagPolicy(Policy, name="flags"):
    """How segments are disputed.

    Attributes:
        reasons: What a manager may choose from, with the words that are shown.
        proposals: How many shifts of bounds are shown to the analyst.
        longest_override_days: So long an analyst's word may hold against the rules.
    """

    reasons: Annotated[dict[Code, Text200], Field(min_length=1, max_length=50)] = REASONS
    proposals: Annotated[int, Field(strict=True, ge=1, le=50)] = 5
    longest_override_days: Annotated[int, Field(strict=True, ge=1, le=3660)] = 180
