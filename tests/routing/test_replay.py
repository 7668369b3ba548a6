"""A decision that is made again from its record gives the same bytes, years later too."""

from datetime import timedelta
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.shared.ids import new_id
from services.routing.choosing.floor import Floor, Seat
from services.routing.choosing.lead import LeadFacts
from services.routing.choosing.presence import HERE
from services.routing.choosing.rule_set import Conditions, Goal, Prepared, Rule, RuleSet, Strategy
from services.routing.choosing.sitting import ENGINE, Terms, outcomes_text, replayed, sit
from tests.routing.conftest import NOON, WINDOW, Routing, received
from tests.routing.test_choosing import who

KINDS = ("rotation", "load", "qualification", "result")
seats: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    weight=st.integers(1, 5),
    capacity=st.none() | st.integers(0, 20),
    hourly=st.none() | st.integers(0, 5),
    daily=st.none() | st.integers(0, 9),
    languages=st.frozensets(st.sampled_from(["ru", "tr"]), max_size=2),
    zones=st.frozensets(st.sampled_from(["ru", "tr", "казань"]), max_size=2),
    skills=st.dictionaries(st.sampled_from(["crm", "erp"]), st.integers(1, 5)),
    presence=st.sampled_from("++++oasph"),
    load=st.integers(0, 12),
    in_hour=st.integers(0, 5),
    in_day=st.integers(0, 9),
    results=st.tuples(*[st.integers(0, 40)] * 4).map(
        lambda r: (r[0] + r[1], r[1], r[2] + r[3], r[3])
    ),
)
leads: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    owner=st.none() | st.integers(1, 6),
    asked=st.lists(st.integers(1, 6), max_size=3, unique=True),
    is_returning=st.booleans(),
    language=st.none() | st.sampled_from(["ru", "tr"]),
    city=st.none() | st.sampled_from(["Казань", "Пермь"]),
    segment=st.none() | st.sampled_from(["best", "poor"]),
    complexity=st.none() | st.sampled_from(["typical", "complex"]),
    kind=st.sampled_from(["request", "handoff", "complaint"]),
    utm=st.dictionaries(st.sampled_from(["source", "medium"]), st.sampled_from(["a", "b"])),
    hops=st.integers(0, 3),
)


@settings(max_examples=150)
@given(
    st.lists(seats, min_size=1, max_size=6),
    st.lists(leads, min_size=1, max_size=8),
    st.sampled_from(KINDS),
    st.sampled_from(KINDS),
)
def test_recorded_inputs_give_the_same_bytes(
    seated: list[dict[str, Any]], asked: list[dict[str, Any]], first: Any, second: Any
) -> None:
    made = [Seat(who(n), **told) for n, told in enumerate(seated, start=1)]
    floor = Floor(made, {"some": [seat.manager_id for seat in made[::2]], "none": []})
    rule = Rule(
        name="Казань",
        conditions=Conditions(cities=("казань",)),
        team="some",
        fallback=("none", "all"),
        strategy=Strategy(kind=first, skill="crm"),
    )
    rule_set = RuleSet(
        rules=(rule,), otherwise=Goal(strategy=Strategy(kind=second, skill="erp", least_level=2))
    )
    rules = Prepared.of(7, rule_set)
    facts = [
        LeadFacts(
            new_id(),
            new_id(),
            owner_id=who(told["owner"]) if told["owner"] else None,
            asked=[who(number) for number in told["asked"]],
            **{name: told[name] for name in told if name not in ("owner", "asked")},
        )
        for told in asked
    ]
    muted = (("poor", NOON + timedelta(days=1)),)
    terms = Terms(2, most_open_leads=10, most_offers=3, owner_first=True, muted=muted)

    roster = orjson.dumps(floor.roster())
    state = floor.begin_record()
    record = {"engine": ENGINE, "terms": terms.record(), "leads": [lead.record() for lead in facts]}
    outcomes = outcomes_text(sit(floor, facts, rules, terms))

    inputs = orjson.dumps({**state, **record}, default=str)
    assert replayed(roster, inputs, rules) == outcomes
    assert replayed(roster, inputs, rules) == outcomes  # and again


def test_what_the_first_engine_decided_is_made_again_as_it_was() -> None:
    seats = [Seat(who(n), weight=weight, presence=HERE) for n, weight in ((1, 1), (2, 4))]
    roster = orjson.dumps(Floor(seats, {}).roster())
    terms = Terms(1, most_open_leads=10, most_offers=3, owner_first=False)
    inputs = {
        "presence": HERE * 2,
        "loads": [0, 0],
        "wheels": {"all": [0, 0, [0, 0], [0, 0]]},
        "terms": terms.record(),
        "leads": [LeadFacts(who(8), who(9)).record()],
    }

    def first(engine: int) -> str:
        told = orjson.dumps({**inputs, "engine": engine}, default=str)
        (outcome,) = orjson.loads(replayed(roster, told, Prepared.of(1, RuleSet())))
        chosen: str = outcome["manager_id"]
        return chosen

    assert (first(1), first(ENGINE)) == (str(who(1)), str(who(2)))


async def test_every_decision_that_was_stored_can_be_made_again(routing: Routing) -> None:
    ann, ben = await routing.manager(hourly_limit=7), await routing.manager(weight=2)
    await routing.team("pair", ann, ben)
    await routing.rules(
        RuleSet(
            rules=(Rule(name="Форма", conditions=Conditions(channels=("form",)), team="pair"),),
            otherwise=Goal(strategy=Strategy(kind="load")),
        )
    )
    await routing.hears(*(received(channel=c) for c in ("form", "phone") * 10))
    await routing.offers()
    await routing.sweeps(NOON + WINDOW)
    await routing.manager()
    await routing.comes(5, utm={"source": "yandex"}, at=NOON + WINDOW)

    rows = await routing.database.pool.fetch(
        "SELECT s.*, r.body AS roster_body, v.body::text AS rules FROM sittings AS s JOIN rosters"
        " AS r USING (roster) JOIN rule_sets AS v ON v.version = s.rule_version ORDER BY at"
    )
    assert len(rows) >= 3
    for row in rows:
        rules = Prepared.of(row["rule_version"], RuleSet.model_validate_json(row["rules"]))
        assert replayed(row["roster_body"], row["inputs"], rules) == row["outcomes"]
    assert await routing.loads_are_right()
