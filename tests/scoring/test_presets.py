"""The ready-made rule sets do what their labels say."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest

from services.scoring.presets import CLIENT_SIZE, LIFE_CYCLE, PRESETS, RECENCY_ABC, VALUE_CLASSES
from services.scoring.rfm import Cuts
from services.scoring.rules import Rules, RuleSet
from services.scoring.standing import Standing

NEW_YEAR = datetime(2025, 1, 1, 9, tzinfo=UTC)


def in_force(rule_set: RuleSet) -> Rules:
    return Rules.of(1, rule_set, Cuts(**rule_set.fixed_cuts.model_dump()))


def bought(rules: Rules, *days: int, money: int = 100_000) -> Standing:
    standing = Standing(UUID(int=1))
    for day in days:
        at = NEW_YEAR + timedelta(days=day)
        standing.buy(rules.day_of(at), money, at=at, rules=rules)
    return standing


@pytest.mark.parametrize(
    ("days", "segment"),
    [(0, "recency_a"), (30, "recency_a"), (31, "recency_b"), (89, "recency_b"), (90, "recency_c")],
)
def test_recency_classes_change_after_30_and_89_days(days: int, segment: str) -> None:
    rules = in_force(RECENCY_ABC)
    standing = bought(rules, 0)

    standing.age(rules.day_of(NEW_YEAR + timedelta(days=days)), rules)

    assert standing.segment == segment


def test_who_buys_every_month_is_regular_until_a_month_goes_by_without() -> None:
    rules = in_force(LIFE_CYCLE)
    assert bought(rules, 0).segment == "one_time"
    assert bought(rules, 0, 3).segment == "periodic"
    standing = bought(rules, 0, 40, 75)  # January, February, March
    assert (standing.segment, standing.monthly_run) == ("monthly", 3)

    moves = standing.age(date(2026, 1, 1), rules)

    assert [(move.new_segment, move.as_of) for move in moves] == [("periodic", date(2025, 5, 1))]


def test_value_classes_and_sizes_go_by_money_and_frequency() -> None:
    for rule_set, days, money, segment in (
        (VALUE_CLASSES, range(5), 2_000_000, "a_plus"),
        (VALUE_CLASSES, range(1), 6_000_000, "a"),
        (VALUE_CLASSES, range(4), 100, "b_plus"),
        (VALUE_CLASSES, range(1), 100, "b_minor"),
        (CLIENT_SIZE, range(1), 15_000_000, "large"),
        (CLIENT_SIZE, range(1), 2_000_000, "medium"),
        (CLIENT_SIZE, range(1), 1_000_000, "small"),
    ):
        assert bought(in_force(rule_set), *days, money=money).segment == segment


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_being_stored(name: str) -> None:
    stored = PRESETS[name].model_dump_json()
    assert RuleSet.model_validate_json(stored) == PRESETS[name]
