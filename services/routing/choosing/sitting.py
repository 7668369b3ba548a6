"""A sitting: leads that are decided together, in their order, each knowing those before it.

It is a function of its inputs and nothing else. The inputs are recorded beside the outcomes, so
that years later somebody can ask why, and the same function gives the same bytes again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from services.routing.choosing.floor import Floor, Seat, stride_of
from services.routing.choosing.lead import LeadFacts
from services.routing.choosing.presence import HERE
from services.routing.choosing.rule_set import EVERYBODY, Goal, Prepared, Strategy
from services.routing.choosing.strategies import Choice, choose, level_of

ENGINE = 2
"""Changes when the same inputs would be decided otherwise; old records then need the old code."""
ENGINES = frozenset({1, ENGINE})
"""Those whose decisions can be made again."""

MOST_KINDS = 1_000  # of leads, of which a floor remembers whom they do not suit
SUITS = (None,)  # an owner suits, whatever the lead asks for
CHOSEN, FREE, KEPT = "*", ".", "n"
ASKED, FULL, HOURLY, DAILY, LANGUAGE, ZONE, SKILL = "q", "c", "H", "D", "l", "z", "k"


class Terms(NamedTuple):
    """What of the policies a decision goes by.

    Attributes:
        muted: Segments whose requests are not routed for the time being, each with the end of that
            time. Who complains, or has been handed over by a bot, is waiting for a person.
    """

    rounds: int
    most_open_leads: int
    most_offers: int
    owner_first: bool
    muted: tuple[tuple[str, datetime], ...] = ()
    touches_per_lead: int | None = None

    def record(self) -> dict[str, Any]:
        return self._asdict()

    @classmethod
    def recorded(cls, told: dict[str, Any]) -> "Terms":
        muted = tuple((name, datetime.fromisoformat(until)) for name, until in told["muted"])
        return cls(**{**told, "muted": muted})


@dataclass(slots=True)
class Outcome:
    """What became of a lead.

    Attributes:
        manager_id: Who gets it; None: nobody is left, or its segment is muted.
        epoch: Of the offer if there is one, else of the last.
        rule: Place of the rule that fitted; None: `otherwise`.
        tried: Teams in the order in which they were asked, each with a mark for every seat.
        load: Of the chosen one, before and after.
        stood: Where they stood in the order of turns, before and after.
        share: By result, in millionths.
    """

    lead_id: UUID
    manager_id: UUID | None
    epoch: int
    round: int
    why: str
    rule: int | None = None
    team: str | None = None
    strategy: str | None = None
    tried: list[tuple[str, str]] | None = None
    load: tuple[int, int] | None = None
    wheel: str | None = None
    stood: tuple[int, int] | None = None
    turn: int | None = None
    share: int | None = None
    muted_until: datetime | None = None


def sit(floor: Floor, leads: Sequence[LeadFacts], rules: Prepared, terms: Terms) -> list[Outcome]:
    """Decide for each lead in turn; the floor changes with each."""
    return [decide(floor, lead, rules, terms) for lead in leads]


def decide(floor: Floor, lead: LeadFacts, rules: Prepared, terms: Terms) -> Outcome:
    """Decide for one lead, and give the chosen their turn."""
    for segment, until in terms.muted:
        if segment == (lead.segment or "none") and lead.kind == "request":
            outcome = Outcome(lead.lead_id, None, lead.epoch, lead.round, "the segment is muted")
            outcome.muted_until = until
            return outcome
    place, goal = rules.first_fit(lead)
    outcome = Outcome(lead.lead_id, None, lead.epoch, lead.round, "", rule=place, tried=[])
    if lead.hops >= terms.most_offers:
        outcome.why = f"it was offered {lead.hops} times"
        return outcome
    asked: Sequence[UUID] = lead.asked
    owner_first = terms.owner_first if goal.owner_first is None else goal.owner_first
    if owner_first and _to_owner(floor, lead, goal, terms, outcome):
        return outcome
    while not _to_team(floor, lead, goal, asked, terms, outcome):
        if not asked or outcome.round >= terms.rounds:
            outcome.why = _nobody(floor, outcome)
            return outcome
        outcome.round, asked = outcome.round + 1, ()
    return outcome


def _to_owner(floor: Floor, lead: LeadFacts, goal: Goal, terms: Terms, outcome: Outcome) -> bool:
    place = floor.place.get(lead.owner_id) if lead.owner_id is not None else None
    if place is None:
        return False
    _, free = _marks(floor, [place], SUITS, lead.asked, terms.most_open_leads)
    if not free:
        return False
    wheel = goal.team if place in floor.teams.get(goal.team, ()) else EVERYBODY
    outcome.strategy, outcome.team = "owner", goal.team
    _give(floor, Choice(place, wheel, stride_of(floor.seats[place])), lead, outcome)
    outcome.why = "the client's own manager"
    return True


def _to_team(
    floor: Floor,
    lead: LeadFacts,
    goal: Goal,
    asked: Sequence[UUID],
    terms: Terms,
    outcome: Outcome,
) -> bool:
    """Look for somebody in the team, then in those to fall back on."""
    for team in (goal.team, *goal.fallback):
        members = floor.teams.get(team, [])
        unfit = _unfit(floor, team, lead, goal)
        marks, free = _marks(floor, members, unfit, asked, terms.most_open_leads)
        if free:
            choice = choose(
                floor,
                team,
                free,
                goal.strategy,
                lead,
                terms.most_open_leads,
                terms.touches_per_lead,
            )
            for place in choice.kept:
                marks[place] = KEPT
            marks[choice.place] = CHOSEN
            outcome.team, outcome.strategy = team, goal.strategy.kind
            _give(floor, choice, lead, outcome)
            outcome.why = _reason(goal.strategy, outcome)
        assert outcome.tried is not None  # noqa: S101  # made with the outcome
        outcome.tried.append((team, "".join(marks)))
        if free:
            return True
    return False


def _marks(
    floor: Floor,
    members: Sequence[int],
    unfit: Sequence[str | None],
    asked: Sequence[UUID],
    most_open_leads: int,
) -> tuple[list[str], list[int]]:
    """A mark for every seat: why each of the team may not have the lead; and those who may."""
    seats = floor.seats
    marks = [" "] * len(seats)
    free = []
    for place, never in zip(members, unfit, strict=True):
        seat = seats[place]
        if seat.presence != HERE:
            marks[place] = seat.presence
        elif asked and seat.manager_id in asked:
            marks[place] = ASKED
        elif seat.load >= (most_open_leads if seat.capacity is None else seat.capacity):
            marks[place] = FULL
        elif seat.hourly is not None and seat.in_hour >= seat.hourly:
            marks[place] = HOURLY
        elif seat.daily is not None and seat.in_day >= seat.daily:
            marks[place] = DAILY
        elif never is not None:
            marks[place] = never
        else:
            marks[place] = FREE
            free.append(place)
    return marks, free


def _unfit(floor: Floor, team: str, lead: LeadFacts, goal: Goal) -> Sequence[str | None]:
    """Why each of the team may never have such a lead; None: they may."""
    strategy = goal.strategy
    asks = (
        *(team, strategy.skill, strategy.least_level, lead.product if strategy.skill else None),
        *(lead.language if goal.match_language else None,),
        *(_places(lead) if goal.match_zone else ()),
    )
    known = floor.unfit.get(asks)
    if known is None:
        if len(floor.unfit) >= MOST_KINDS:
            floor.unfit.clear()
        seats = [floor.seats[place] for place in floor.teams.get(team, ())]
        known = floor.unfit[asks] = _never(seats, lead, goal)
    return known


def _never(seats: Iterable[Seat], lead: LeadFacts, goal: Goal) -> list[str | None]:
    languages, zones, strategy = _languages(lead, goal), _zones(lead, goal), goal.strategy

    def never(seat: Seat) -> str | None:
        if languages and seat.languages and seat.languages.isdisjoint(languages):
            return LANGUAGE
        if zones and seat.zones and seat.zones.isdisjoint(zones):
            return ZONE
        if strategy.skill and level_of(seat, strategy, lead) < strategy.least_level:
            return SKILL
        return None

    return [never(seat) for seat in seats]


def _languages(lead: LeadFacts, goal: Goal) -> set[str]:
    """One of these has to be spoken; empty: whatever is spoken will do."""
    if not goal.match_language or not lead.language:
        return set()
    spoken = lead.language.casefold()
    return {spoken, spoken.partition("-")[0]}


def _zones(lead: LeadFacts, goal: Goal) -> set[str]:
    """One of these has to be worked in; empty: anybody will do."""
    if not goal.match_zone:
        return set()
    return {place.casefold() for place in _places(lead) if place}


def _places(lead: LeadFacts) -> tuple[str | None, ...]:
    return lead.region, lead.city, lead.phone_region, lead.phone_country


def _give(floor: Floor, choice: Choice, lead: LeadFacts, outcome: Outcome) -> None:
    seat, wheel = floor.seats[choice.place], floor.wheel(choice.wheel)
    stood = wheel.stands(choice.place)
    outcome.turn = wheel.give(choice.place, choice.stride)
    outcome.stood = (stood, wheel.passed[choice.place])
    outcome.wheel, outcome.share = choice.wheel, choice.share
    outcome.load = (seat.load, seat.load + 1)
    seat.load += 1
    seat.in_hour += 1
    seat.in_day += 1
    outcome.manager_id, outcome.epoch = seat.manager_id, lead.epoch + 1


def _reason(strategy: Strategy, outcome: Outcome) -> str:
    match strategy.kind:
        case "load":
            return f"least load, turn {outcome.turn}"
        case "qualification":
            return f"qualification, turn {outcome.turn}"
        case "result":
            return f"by result, turn {outcome.turn}"
        case _:
            return f"round robin, turn {outcome.turn}"


def _nobody(floor: Floor, outcome: Outcome) -> str:
    tried = "".join(marks for _, marks in outcome.tried or ())
    there = [mark for mark in tried if mark in (ASKED, FULL, HOURLY, DAILY, LANGUAGE, ZONE, SKILL)]
    if not there:
        return "nobody is on shift"
    if set(there) <= {ASKED, FULL}:
        return "everybody on shift was asked or is full"
    return "nobody on shift may have it now"


def outcomes_text(outcomes: Sequence[Outcome]) -> bytes:
    """Outcomes as they are recorded."""
    return orjson.dumps(outcomes, default=str)


def replayed(roster: bytes, inputs: bytes, rules: Prepared) -> bytes:
    """What comes of recorded inputs; the same bytes as were recorded, if nothing is amiss."""
    told = orjson.loads(inputs)
    floor = Floor.recorded(orjson.loads(roster), told)
    floor.begin_record()
    leads = [LeadFacts.recorded(lead) for lead in told["leads"]]
    return outcomes_text(sit(floor, leads, rules, Terms.recorded(told["terms"])))
