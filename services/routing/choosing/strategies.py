"""The four ways to choose among those who are free.

All of them end in a rotation: who stands first in the order of turns is next, so that among equals
whoever has waited longest gets the lead.
"""

from collections.abc import Sequence
from typing import NamedTuple

from services.routing.choosing.floor import BY_RESULT, SCALE, Floor, Seat, stride_of
from services.routing.choosing.lead import LeadFacts
from services.routing.choosing.rule_set import Strategy


class Choice(NamedTuple):
    """Who is next.

    Attributes:
        kept: Free, but kept for leads of the other kind (`qualification`).
        share: The chosen one's share in millionths (`result`).
    """

    place: int
    wheel: str
    stride: int
    kept: Sequence[int] = ()
    share: int | None = None


def choose(
    floor: Floor,
    team: str,
    free: Sequence[int],
    strategy: Strategy,
    lead: LeadFacts,
    most_open_leads: int,
    touches_per_lead: int | None = None,
) -> Choice:
    """Who of the free gets the lead.

    Args:
        free: Places of seats, not empty.
        most_open_leads: Capacity of those who have none of their own.
        touches_per_lead: So many open touches are as much to do as one lead; None: they are not
            looked at.
    """
    match strategy.kind:
        case "rotation":
            return _in_turn(floor, team, free)
        case "load":
            return _by_load(floor, team, free, most_open_leads, touches_per_lead)
        case "qualification":
            return _by_qualification(floor, team, free, strategy, lead)
        case "result":
            return _by_result(floor, team, free, strategy, lead)


def _in_turn(floor: Floor, team: str, free: Sequence[int]) -> Choice:
    wheel, seats = floor.wheel(team), floor.seats
    place = wheel.first(free)
    return Choice(place, team, stride_of(seats[place]))


def _by_load(
    floor: Floor,
    team: str,
    free: Sequence[int],
    most_open_leads: int,
    touches_per_lead: int | None,
) -> Choice:
    def fullness(place: int) -> int:
        seat = floor.seats[place]
        capacity = most_open_leads if seat.capacity is None else seat.capacity
        to_do = seat.load * SCALE
        if touches_per_lead is not None:
            to_do += seat.touches * SCALE // touches_per_lead
        return to_do // max(capacity, 1)

    full = [fullness(place) for place in free]
    least = min(full)
    return _in_turn(floor, team, [place for place, n in zip(free, full, strict=True) if n == least])


def _by_qualification(
    floor: Floor, team: str, free: Sequence[int], strategy: Strategy, lead: LeadFacts
) -> Choice:
    """Complex leads to the experienced, all others to novices, as long as there are any free."""
    experienced: list[int] = []
    novices: list[int] = []
    for place in free:
        level = level_of(floor.seats[place], strategy, lead)
        (experienced if level >= strategy.experienced_from_level else novices).append(place)
    first, second = novices, experienced
    if lead.complexity == "complex":
        first, second = experienced, novices
    choice = _in_turn(floor, team, first or second)
    kept = second if first else ()
    return Choice(choice.place, choice.wheel, choice.stride, kept)


def level_of(seat: Seat, strategy: Strategy, lead: LeadFacts) -> int:
    """Level of the skill that the strategy asks for; 0: they have not got it."""
    if strategy.skill is None:
        return 0
    if strategy.skill != "product":
        return seat.skills.get(strategy.skill.casefold(), 0)
    return seat.skills.get((lead.product or "").casefold(), 0)


def _by_result(
    floor: Floor, team: str, free: Sequence[int], strategy: Strategy, lead: LeadFacts
) -> Choice:
    """A rotation weighted by conversion; of its own for cold and for returning leads."""
    kind = "returning" if lead.is_returning else "cold"
    name = f"{team}{BY_RESULT}{kind}"
    wheel = floor.wheel(name)
    members = floor.teams[team]
    results = [_had_and_won(floor.seats[place], lead.is_returning) for place in members]
    shares = shares_by_result(results, strategy.floor_percent, strategy.newcomer_leads)
    share = dict(zip(members, shares, strict=True))
    place = wheel.first(free)
    return Choice(place, name, SCALE * SCALE // share[place], share=share[place])


def _had_and_won(seat: Seat, is_returning: bool) -> tuple[int, int]:
    had_cold, won_cold, had, won = seat.results
    return (had, won) if is_returning else (had_cold, won_cold)


def shares_by_result(
    results: Sequence[tuple[int, int]], floor_percent: int, newcomer_leads: int
) -> list[int]:
    """Each one's share of the leads in millionths: by conversion, but none below the floor.

    Args:
        results: Leads had and leads won, of each.
        floor_percent: Of an equal share where there are too many for all to have it.
        newcomer_leads: Who has had fewer counts as average, so that they get their chance.
    """
    known = [won / had for had, won in results if had >= newcomer_leads]
    average = sum(known) / len(known) if known else 1.0
    rates = [won / had if had >= newcomer_leads else average for had, won in results]
    count = len(rates)
    least = min(floor_percent / 100, 1 / count)
    shares = [1 / count] * count
    if total := sum(rates):
        shares = [rate / total for rate in rates]
    lifted: set[int] = set()
    while low := [n for n, share in enumerate(shares) if share < least and n not in lifted]:
        lifted.update(low)
        others = [n for n in range(count) if n not in lifted]
        rest, weight = 1 - least * len(lifted), sum(rates[n] for n in others)
        shares = [least if n in lifted else rates[n] / weight * rest for n in range(count)]
    return [max(1, round(share * SCALE)) for share in shares]
