"""Whose turn it is."""

from collections import Counter
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.routing.round_robin import Candidate, choose, give_turn

MANY = 1000


def team(*turns: int) -> list[Candidate]:
    return [Candidate(UUID(int=number), turn, 0) for number, turn in enumerate(turns, start=1)]


@given(st.integers(1, 12), st.integers(1, 100))
def test_turns_are_spread_evenly(managers: int, leads: int) -> None:
    candidates = team(*[0] * managers)
    given_to: Counter[UUID] = Counter({c.manager_id: 0 for c in candidates})

    for _ in range(leads):
        chosen = choose(candidates, asked=(), most_open_leads=MANY)
        assert chosen is not None
        give_turn(chosen, candidates)
        given_to[chosen.manager_id] += 1

    assert max(given_to.values()) - min(given_to.values()) <= 1


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.sets(st.integers(1, 8)))
def test_nobody_who_was_asked_is_asked_again(turns: list[int], asked: set[int]) -> None:
    passed_over = {UUID(int=number) for number in asked}

    chosen = choose(team(*turns), asked=passed_over, most_open_leads=MANY)

    left = [c for c in team(*turns) if c.manager_id not in passed_over]
    if chosen is None:
        assert left == []
    else:
        assert chosen.manager_id not in passed_over
        assert chosen.last_turn == min(c.last_turn for c in left)


def test_whoever_waited_longest_is_next_and_a_newcomer_is_first() -> None:
    assert choose(team(7, 3, 5), asked=(), most_open_leads=MANY) == Candidate(UUID(int=2), 3, 0)
    assert choose(team(7, 3, 0), asked=(), most_open_leads=MANY) == Candidate(UUID(int=3), 0, 0)


def test_the_owner_goes_first_unless_asked_already() -> None:
    owner = UUID(int=1)

    first = choose(team(9, 1), asked=(), most_open_leads=MANY, owner_id=owner)
    second = choose(team(9, 1), asked={owner}, most_open_leads=MANY, owner_id=owner)

    assert first is not None
    assert second is not None
    assert (first.manager_id, second.manager_id) == (owner, UUID(int=2))


def test_a_full_manager_gets_nothing() -> None:
    full = [Candidate(UUID(int=1), 0, 5)]

    assert choose(full, asked=(), most_open_leads=5) is None
    assert choose(full, asked=(), most_open_leads=6) is not None
