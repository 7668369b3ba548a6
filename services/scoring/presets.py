"""Ready-made segments: ten that marketers know, with Russian labels.

Source: the ranges are those of the R package `rfm`, vignette "RFM analysis: customer level data".
"""

from services.scoring.rules import RuleSet, SegmentRule

Span = tuple[int, int]


def _rule(
    name: str, label: str, r: Span, f: Span, m: Span, priority: int, touch_every_days: int
) -> SegmentRule:
    return SegmentRule(
        name=name,
        label=label,
        recency=r,
        frequency=f,
        monetary=m,
        priority=priority,
        touch_every_days=touch_every_days,
    )


TEN_SEGMENTS: tuple[SegmentRule, ...] = (
    _rule("champions", "Чемпионы", (5, 5), (5, 5), (5, 5), 2, 14),
    _rule("potential_loyalist", "Почти постоянные", (3, 5), (3, 5), (2, 5), 4, 30),
    _rule("loyal_customers", "Постоянные", (2, 4), (2, 4), (2, 4), 3, 30),
    _rule("promising", "Многообещающие", (3, 4), (1, 3), (3, 5), 6, 30),
    _rule("new_customers", "Новые", (4, 5), (1, 3), (1, 5), 5, 14),
    _rule("cant_lose_them", "Нельзя потерять", (1, 2), (3, 4), (4, 5), 1, 7),
    _rule("at_risk", "В зоне риска", (1, 2), (2, 5), (4, 5), 1, 7),
    _rule("need_attention", "Требуют внимания", (1, 3), (3, 5), (3, 5), 4, 14),
    _rule("about_to_sleep", "Засыпающие", (2, 3), (1, 3), (1, 4), 7, 60),
    _rule("lost", "Потерянные", (1, 1), (1, 5), (1, 5), 9, 180),
)

DEFAULT_RULE_SET = RuleSet(title="RFM, десять сегментов", segments=TEN_SEGMENTS)
