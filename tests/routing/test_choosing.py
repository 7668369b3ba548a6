"""Whose turn it is, by each of the strategies; peers' cases among them."""

from collections import Counter
from collections.abc import Mapping
from itertools import product
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.routing.choosing.floor import Floor, Seat, Wheel
from services.routing.choosing.lead import LeadFacts
from services.routing.choosing.presence import ABSENT, HERE, OFF_SHIFT
from services.routing.choosing.rule_set import EVERYBODY, Goal, Prepared, RuleSet, Strategy
from services.routing.choosing.sitting import Outcome, Terms, _unfit, decide
from services.routing.choosing.strategies import shares_by_result

TERMS = Terms(rounds=1, most_open_leads=1000, most_offers=20, owner_first=True)


def who(number: int) -> UUID:
    return UUID(int=number)


def team(*seats: Mapping[str, object]) -> Floor:
    made = [
        Seat(who(number), **{"presence": HERE, **told})  # type: ignore[arg-type]  # tests pass members only
        for number, told in enumerate(seats, start=1)
    ]
    return Floor(made, {})


def by(kind: str = "rotation", **options: object) -> Prepared:
    strategy = Strategy.model_validate({"kind": kind, **options})
    return Prepared.of(1, RuleSet(otherwise=Goal(strategy=strategy)))


def lead(**told: object) -> LeadFacts:
    return LeadFacts(who(1000), who(2000), **told)  # type: ignore[arg-type]  # tests pass members only


def give(floor: Floor, rules: Prepared, leads: int = 1, **told: object) -> list[int]:
    outcomes = [decide(floor, lead(**told), rules, TERMS) for _ in range(leads)]
    return [outcome.manager_id.int if outcome.manager_id else 0 for outcome in outcomes]


def marks(outcome: Outcome) -> str:
    assert outcome.tried is not None
    return outcome.tried[-1][1]


PLACES = st.none() | st.sampled_from(["ru", "Казань", "tr"])
SEATS: st.SearchStrategy[dict[str, object]] = st.builds(
    dict,
    languages=st.frozensets(st.sampled_from(["ru", "tr"])),
    zones=st.frozensets(st.sampled_from(["ru", "tr", "казань"])),
    skills=st.dictionaries(st.sampled_from(["crm", "erp"]), st.integers(1, 3)),
)
LEADS = st.builds(
    lead,
    language=st.none() | st.sampled_from(["ru", "ru-RU", "tr"]),
    product=st.none() | st.sampled_from(["crm", "erp"]),
    region=PLACES,
    city=PLACES,
    phone_region=PLACES,
    phone_country=PLACES,
)
GOALS = st.builds(
    Goal,
    team=st.sampled_from([EVERYBODY, "odd"]),
    strategy=st.builds(
        Strategy,
        skill=st.none() | st.sampled_from(["crm", "product"]),
        least_level=st.integers(1, 3),
    ),
    match_language=st.booleans(),
    match_zone=st.booleans(),
)


@settings(max_examples=500)
@given(
    st.lists(SEATS, min_size=1, max_size=4),
    st.lists(LEADS, min_size=2, max_size=8),
    st.lists(GOALS, min_size=1, max_size=3),
)
def test_what_a_floor_remembers_of_other_leads_is_true_of_this_one(
    seated: list[dict[str, object]], asked: list[LeadFacts], goals: list[Goal]
) -> None:
    def floor() -> Floor:
        seats = team(*seated).seats
        return Floor(seats, {"odd": [seat.manager_id for seat in seats[::2]]})

    remembering = floor()
    for one, goal in product(asked, goals):
        known = _unfit(remembering, goal.team, one, goal)
        assert known == _unfit(floor(), goal.team, one, goal)


@given(st.integers(1, 12), st.integers(1, 100))
def test_turns_are_spread_evenly(managers: int, leads: int) -> None:
    given_to = Counter(give(team(*[{}] * managers), by(), leads))

    assert sum(given_to.values()) == leads
    counts = [given_to[number] for number in range(1, managers + 1)]
    assert max(counts) - min(counts) <= 1


@given(st.data())
def test_the_first_is_the_least_in_the_order_of_turns(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))

    def numbers(most: int) -> list[int]:
        return data.draw(st.lists(st.integers(0, most), min_size=count, max_size=count))

    wheel = Wheel(numbers(5), numbers(2), numbers(3), reached=data.draw(st.integers(0, 5)))
    free = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
    assert wheel.first(free) == min(wheel.order(free))[2]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 60))
def test_weights_are_kept_to_one_lead(weights: list[int], leads: int) -> None:
    given_to = Counter(give(team(*[{"weight": weight} for weight in weights]), by(), leads))

    for number, weight in enumerate(weights, start=1):
        share = leads * weight / sum(weights)
        assert abs(given_to[number] - share) < 2


def test_weights_of_1_and_2_over_5_leads_give_2_and_3() -> None:
    assert Counter(give(team({"weight": 1}, {"weight": 2}), by(), 5)) == {1: 2, 2: 3}


def test_who_weighs_more_gets_neither_all_their_leads_in_a_row_nor_none_at_first() -> None:
    heavy = team({}, {}, {}, {}, {"weight": 4})
    assert give(heavy, by(), 16) == [5, 5, 1, 2, 3, 4, 5, 5] * 2


def test_whoever_waited_longest_is_next_and_a_newcomer_comes_first_once() -> None:
    floor = team({}, {}, {"presence": OFF_SHIFT})
    assert give(floor, by(), 6) == [1, 2, 1, 2, 1, 2]

    floor.seats[2].presence = HERE
    after = give(floor, by(), 9)
    assert after[0] == 3
    assert max(Counter(after).values()) - min(Counter(after).values()) <= 1


def test_turns_go_on_where_they_were_when_people_come_and_go() -> None:
    floor = team({}, {}, {})
    assert give(floor, by(), 2) == [1, 2]
    floor.seats[2].presence = ABSENT
    assert give(floor, by(), 2) == [1, 2]
    floor.seats[2].presence = HERE
    assert give(floor, by(), 3)[0] == 3


@pytest.mark.parametrize(
    ("seat", "mark"),
    [
        ({"presence": OFF_SHIFT}, "o"),
        ({"presence": ABSENT}, "a"),
        ({"load": 5, "capacity": 5}, "c"),
        ({"load": 1000}, "c"),
        ({"hourly": 5, "in_hour": 5}, "H"),
        ({"daily": 2, "in_day": 2}, "D"),
        ({"languages": frozenset({"tr"})}, "l"),
        ({"zones": frozenset({"tr", "стамбул"})}, "z"),
    ],
)
def test_who_cannot_have_it_is_passed_over_with_the_reason(
    seat: dict[str, object], mark: str
) -> None:
    floor = team(seat, {})
    outcome = decide(floor, lead(language="ru", phone_country="RU"), by(), TERMS)
    assert (outcome.manager_id, marks(outcome)) == (who(2), mark + "*")


def test_what_is_not_known_of_a_lead_excludes_nobody() -> None:
    floor = team({"languages": frozenset({"tr"}), "zones": frozenset({"tr"})})
    assert give(floor, by()) == [1]
    assert give(floor, by(), language="tr-TR", phone_country="TR") == [1]


def test_the_owner_goes_first_if_there_and_not_asked_already() -> None:
    floor = team({}, {}, {"presence": OFF_SHIFT})
    assert give(floor, by(), 2, owner_id=who(2)) == [2, 2]
    assert give(floor, by(), 1, owner_id=who(2), asked=[who(2)]) == [1]
    assert give(floor, by(), 2, owner_id=who(3)) == [2, 1]
    never = Prepared.of(1, RuleSet(otherwise=Goal(owner_first=False)))
    assert give(team({}, {}), never, 1, owner_id=who(2)) == [1]


def test_nobody_who_was_asked_is_asked_again_in_a_round() -> None:
    floor = team({}, {})
    outcome = decide(floor, lead(asked=[who(1)]), by(), TERMS)
    assert (outcome.manager_id, marks(outcome)) == (who(2), "q*")
    last = decide(floor, lead(asked=[who(1), who(2)]), by(), TERMS)
    assert (last.manager_id, last.why) == (None, "everybody on shift was asked or is full")
    two = Terms(rounds=2, most_open_leads=9, most_offers=20, owner_first=True)
    again = decide(floor, lead(asked=[who(1), who(2)]), by(), two)
    assert (again.manager_id, again.round) == (who(1), 2)


def test_a_lead_that_was_offered_too_often_goes_to_the_queue() -> None:
    assert decide(team({}), lead(hops=20), by(), TERMS).why == "it was offered 20 times"


def test_a_team_that_has_nobody_falls_back_on_the_next() -> None:
    seats = [Seat(who(1), presence=OFF_SHIFT), Seat(who(2), presence=HERE)]
    floor = Floor(seats, {"first": [who(1)], "second": [who(2)]})
    goal = Goal(team="first", fallback=("second", EVERYBODY))
    outcome = decide(floor, lead(), Prepared.of(1, RuleSet(otherwise=goal)), TERMS)
    assert outcome.manager_id == who(2)
    assert outcome.tried == [("first", "o "), ("second", " *")]


def test_the_least_loaded_for_their_capacity_is_next() -> None:
    floor = team(
        {"load": 4, "capacity": 10}, {"load": 3, "capacity": 5}, {"load": 9, "capacity": 20}
    )
    assert give(floor, by("load"), 3) == [1, 3, 1]


def test_open_touches_are_load_too() -> None:
    seats = [{"load": 2, "touches": 40}, {"load": 3, "touches": 9}, {"load": 6}]
    assert give(team(*seats), by("load")) == [1]  # as if there were none
    terms = TERMS._replace(touches_per_lead=10)  # 6, 3.9 and 6 leads
    floor = team(*seats)
    given = [decide(floor, lead(), by("load"), terms).manager_id for _ in range(4)]
    assert given == [who(2), who(2), who(2), who(1)]  # at 6 both wait, the first for longer


def test_complex_leads_go_to_the_experienced_and_typical_ones_to_novices() -> None:
    def floor(*, there: str = HERE) -> Floor:
        return team(
            {"skills": {"crm": 5}, "presence": there},
            {"skills": {"crm": 1}},
            {"skills": {"crm": 2}},
            {"skills": {"erp": 9}},
        )

    rules = by("qualification", skill="crm")
    assert give(floor(), rules, 3, complexity="complex") == [1, 1, 1]
    assert give(floor(), rules, 4, complexity="typical") == [2, 3, 2, 3]
    assert give(floor(there=OFF_SHIFT), rules, 2, complexity="complex") == [2, 3]
    outcome = decide(floor(), lead(complexity="complex"), rules, TERMS)
    assert marks(outcome) == "*nnk"
    by_product = by("qualification", skill="product", least_level=5)
    assert give(floor(), by_product, 2, product="ERP") == [4, 4]


def test_shares_follow_conversion_and_never_fall_below_the_floor() -> None:
    floor = team(
        {"results": (100, 30, 0, 0)}, {"results": (100, 10, 0, 0)}, {"results": (0, 0, 0, 0)}
    )
    given_to = Counter(give(floor, by("result"), 600))
    assert (given_to[1], given_to[2], given_to[3]) == (300, 100, 200)  # a newcomer is average


def test_cold_and_returning_leads_are_judged_apart() -> None:
    floor = team({"results": (100, 30, 100, 10)}, {"results": (100, 10, 100, 30)})
    cold = Counter(give(floor, by("result"), 400))
    returning = Counter(give(floor, by("result"), 400, is_returning=True))
    assert (cold[1], returning[1]) == (300, 100)


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=12),
    st.integers(0, 50),
    st.integers(1, 50),
)
def test_no_share_is_below_the_floor_and_all_make_one(
    results: list[tuple[int, int]], floor_percent: int, newcomer_leads: int
) -> None:
    told = [(had, min(had, won)) for had, won in results]
    shares = shares_by_result(told, floor_percent, newcomer_leads)

    least = min(floor_percent / 100, 1 / len(told))
    assert all(share >= int(least * 1_000_000) for share in shares)
    assert abs(sum(shares) - 1_000_000) <= len(shares) * 2
