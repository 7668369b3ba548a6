"""Ready-made rule sets to begin from, with Russian labels.

The ten segments that marketers know, the recency classes A, B, C with their touch SLA, value
classes, large/medium/small, and the life cycle of a buyer.

Sources: the ranges of the ten are those of the R package `rfm`, vignette "RFM analysis: customer
level data"; the others are requirements S-02, S-03, C-08 and section 12.1.
"""

from collections.abc import Mapping

from services.scoring.rules import FixedCuts, OtherSegment, RuleSet, SegmentRule
from services.scoring.touch_sla import TouchSla

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

SAME_WORKING_DAY = TouchSla(same_working_day=True)
EVERY_TEN_WORKING_DAYS = TouchSla(every=10, unit="working_days")
WEEKLY = TouchSla(every=7)
BEFORE_THE_NEXT_PURCHASE = TouchSla(every=90, before_expected=5)

RECENCY_ABC = RuleSet(
    title="Классы давности A, B, C",
    fixed_cuts=FixedCuts(recency_days=(31, 90, 181, 366)),
    segments=(
        SegmentRule(
            name="recency_a",
            label="A: купил за последние 30 дней",
            recency=(5, 5),
            priority=1,
            touch=SAME_WORKING_DAY,
        ),
        SegmentRule(
            name="recency_b",
            label="B: не покупал 31–89 дней",
            recency=(4, 4),
            priority=2,
            touch=EVERY_TEN_WORKING_DAYS,
        ),
    ),
    otherwise=OtherSegment(
        name="recency_c", label="C: не покупал 90 дней и дольше", priority=3, touch=WEEKLY
    ),
)

VALUE_CLASSES = RuleSet(
    title="Классы ценности",
    segments=(
        SegmentRule(
            name="a_plus",
            label="A-plus: регулярный с высоким чеком",
            frequency=(4, 5),
            monetary=(4, 5),
            priority=1,
            touch_every_days=14,
        ),
        SegmentRule(
            name="a", label="A: высокий чек", monetary=(4, 5), priority=2, touch_every_days=21
        ),
        SegmentRule(name="b_plus", label="B-plus: регулярный", frequency=(3, 5), priority=3),
    ),
    otherwise=OtherSegment(name="b_minor", label="B-minor: эпизодический", priority=4),
)

CLIENT_SIZE = RuleSet(
    title="Крупные, средние, мелкие",
    segments=(
        SegmentRule(
            name="large", label="Крупный", monetary=(5, 5), priority=1, touch_every_days=14
        ),
        SegmentRule(name="medium", label="Средний", monetary=(3, 4), priority=2),
    ),
    otherwise=OtherSegment(name="small", label="Мелкий", priority=3),
)

LIFE_CYCLE = RuleSet(
    title="Жизненный цикл покупателя",
    period_days=3650,
    segments=(
        SegmentRule(
            name="monthly",
            label="Постоянный",  # buys every month
            monthly_run_from=3,
            priority=1,
            touch_every_days=14,
        ),
        SegmentRule(
            name="periodic",
            label="Периодический",
            frequency=(2, 5),
            priority=2,
            touch=BEFORE_THE_NEXT_PURCHASE,
        ),
    ),
    otherwise=OtherSegment(name="one_time", label="Разовый", priority=3, touch_every_days=180),
)

PRESETS: Mapping[str, RuleSet] = {
    "ten_segments": DEFAULT_RULE_SET,
    "recency_abc": RECENCY_ABC,
    "value_classes": VALUE_CLASSES,
    "client_size": CLIENT_SIZE,
    "life_cycle": LIFE_CYCLE,
}
