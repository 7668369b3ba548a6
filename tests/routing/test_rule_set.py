"""Which rule a lead falls under."""

import pytest
from pydantic import ValidationError

from libs.shared.ids import new_id
from services.routing.choosing.lead import LeadFacts
from services.routing.choosing.rule_set import Conditions, Goal, Prepared, Rule, RuleSet, Strategy

OWNER = new_id()


def lead(**told: object) -> LeadFacts:
    return LeadFacts(new_id(), new_id(), **told)  # type: ignore[arg-type]  # tests pass members only


def fits(conditions: Conditions, facts: LeadFacts) -> bool:
    rule_set = RuleSet(rules=(Rule(name="r", conditions=conditions),))
    return Prepared.of(1, rule_set).first_fit(facts)[0] == 0


@pytest.mark.parametrize(
    ("conditions", "yes", "no"),
    [
        ({"regions": ["Урал"]}, {"region": "урал"}, {"region": "Сибирь"}),
        ({"cities": ["Казань", "Пермь"]}, {"city": "ПЕРМЬ"}, {"city": None}),
        ({"phone_countries": ["TR"]}, {"phone_country": "TR"}, {"phone_country": "RU"}),
        ({"phone_regions": ["Свердловская обл"]}, {"phone_region": "Свердловская обл"}, {}),
        ({"domains": [".tr"]}, {"domain": "shop.com.tr"}, {"domain": "shop.ru"}),
        ({"domains": ["baza.ru"]}, {"domain": "baza.ru"}, {"domain": "m.baza.ru"}),
        ({"products": ["Сезонный абонемент"]}, {"product": "сезонный абонемент"}, {}),
        ({"languages": ["tr"]}, {"language": "TR"}, {"language": "ru"}),
        ({"channels": ["phone"]}, {"channel": "phone"}, {"channel": "form"}),
        ({"sources": ["landing"]}, {"source": "landing"}, {"source": "main"}),
        ({"utm": {"source": ["yandex"]}}, {"utm": {"source": "Yandex"}}, {"utm": {}}),
        ({"amount_from_minor": 100}, {"amount_minor": 100}, {"amount_minor": 99}),
        ({"amount_below_minor": 100}, {"amount_minor": 99}, {"amount_minor": 100}),
        ({"amount_below_minor": 100}, {"amount_minor": 0}, {"amount_minor": None}),
        ({"segments": ["Лучшие", "none"]}, {"segment": None}, {"segment": "Спящие"}),
        ({"owners": [str(OWNER)]}, {"owner_id": OWNER}, {"owner_id": None}),
        ({"is_returning": True}, {"is_returning": True}, {"is_returning": False}),
        ({"complexities": ["complex"]}, {"complexity": "complex"}, {"complexity": None}),
        ({"kinds": ["complaint", "handoff"]}, {"kind": "handoff"}, {"kind": "request"}),
        (
            {"cities": ["Казань"], "channels": ["form"]},
            {"city": "Казань", "channel": "form"},
            {"city": "Казань", "channel": "phone"},
        ),
    ],
)
def test_a_condition_holds_or_not(
    conditions: dict[str, object], yes: dict[str, object], no: dict[str, object]
) -> None:
    asked = Conditions.model_validate(conditions)
    assert fits(asked, lead(**yes))
    assert not fits(asked, lead(**no))


def test_the_first_rule_that_fits_wins_and_the_rest_goes_otherwise() -> None:
    rule_set = RuleSet(
        rules=(
            Rule(name="Турция", conditions=Conditions(domains=(".tr",)), team="istanbul"),
            Rule(name="Россия", conditions=Conditions(domains=(".ru",)), team="ekb"),
            Rule(name="Всё с сайта", conditions=Conditions(channels=("form",)), team="site"),
        ),
        otherwise=Goal(team="rest"),
    )
    ready = Prepared.of(1, rule_set)

    def team(**told: object) -> str:
        return ready.first_fit(lead(**told))[1].team

    assert team(domain="baza.com.tr", channel="form") == "istanbul"
    assert team(domain="baza.ru", channel="form") == "ekb"
    assert team(domain="baza.de", channel="form") == "site"
    assert team(domain="baza.de", channel="phone") == "rest"


@pytest.mark.parametrize(
    ("earlier", "later", "is_shadowed"),
    [
        ({}, {"cities": ["Казань"]}, True),
        ({"cities": ["Казань", "Пермь"]}, {"cities": ["пермь"]}, True),
        ({"cities": ["Казань"]}, {"cities": ["Казань", "Пермь"]}, False),
        ({"cities": ["Казань"]}, {}, False),
        ({"domains": [".ru"]}, {"domains": ["baza.ru"]}, True),
        ({"domains": ["baza.ru"]}, {"domains": [".ru"]}, False),
        ({"amount_from_minor": 10}, {"amount_from_minor": 20}, True),
        ({"amount_from_minor": 20}, {"amount_from_minor": 10}, False),
        ({"utm": {"source": ["a", "b"]}}, {"utm": {"source": ["a"], "medium": ["c"]}}, True),
        ({"is_returning": True}, {"is_returning": False}, False),
        ({"channels": ["form"]}, {"channels": ["form"], "cities": ["Казань"]}, True),
    ],
)
def test_a_rule_that_no_lead_can_reach_is_found(
    earlier: dict[str, object], later: dict[str, object], is_shadowed: bool
) -> None:
    rule_set = RuleSet(
        rules=(
            Rule(name="выше", conditions=Conditions.model_validate(earlier)),
            Rule(name="ниже", conditions=Conditions.model_validate(later)),
        )
    )
    assert rule_set.shadowed() == ([(1, 0)] if is_shadowed else [])


def test_senseless_rules_are_refused() -> None:
    with pytest.raises(ValidationError, match="the same name"):
        RuleSet(rules=(Rule(name="a"), Rule(name="a")))
    with pytest.raises(ValidationError, match="needs a skill"):
        Strategy(kind="qualification")
    with pytest.raises(ValidationError):
        Conditions.model_validate({"colour": "red"})
