"""The checker of histories finds what it is there to find."""

from typing import Any

import pytest

from tests.routing.history import check, unfair

FINE: list[tuple[str, dict[str, Any]]] = [
    ("lead.assigned", {"manager_id": "a", "epoch": 1}),
    ("lead.unclaimed", {"manager_id": "a", "epoch": 1}),
    ("lead.escalated", {"epoch": 1}),
    ("lead.assigned", {"manager_id": "b", "epoch": 2}),
    ("lead.claimed", {"manager_id": "b", "epoch": 2}),
]
A, LAPSE, QUEUE, B, CLAIM = FINE
DEAL = ("lead.converted", {"manager_id": "b", "epoch": 2})
SPAM = ("lead.closed", {"manager_id": None, "epoch": 1})


def test_a_sound_history_is_sound() -> None:
    verdict = check({"l": FINE}, claims=[("l", 2, "b")])
    assert verdict.wrong == []
    assert check({"l": [*FINE, DEAL], "m": [A, LAPSE, QUEUE, SPAM]}, claims=[]).wrong == []


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ([A, B, CLAIM], "while a has it"),
        ([A, LAPSE, LAPSE, B, CLAIM], "moved twice"),
        ([A, LAPSE, B], "nobody has it"),
        ([A, ("lead.claimed", {"manager_id": "b", "epoch": 1})], "claimed by b"),
        ([A, ("lead.claimed", {"manager_id": "a", "epoch": 1}), LAPSE, B, CLAIM], "though claimed"),
        ([A, LAPSE, ("lead.assigned", {"manager_id": "b", "epoch": 3})], "epoch 3 after 1"),
        ([A, QUEUE, B, CLAIM], "in the queue while"),
        ([A, ("lead.released", {"manager_id": "b", "epoch": 1}), B, CLAIM], "lead.released of b"),
        ([], "nobody has it"),
        ([A, DEAL], "never claimed"),
        ([A, LAPSE, B, CLAIM, DEAL, LAPSE], "after its end"),
        ([A, LAPSE, B, ("lead.closed", {"manager_id": "a", "epoch": 2})], "lead.closed of a"),
    ],
)
def test_what_must_not_be_is_found(said: list[Any], what: str) -> None:
    assert any(what in wrong for wrong in check({"l": said}, claims=[]).wrong)


def test_a_claim_that_was_answered_and_not_said_is_found() -> None:
    wrong = check({"l": FINE}, claims=[("l", 1, "a"), ("l", 2, "c")]).wrong
    assert len(wrong) == 2


@pytest.mark.parametrize(
    ("turns", "what"),
    [
        (["*..", ".*.", "..*", "*.."], None),
        (["*..", "*qq", ".*.", "..*", "q*.", "..*"], None),  # asked: the first could have it only
        (["*..", "*.."], "went to 0 with 1, least was 0"),
        (["*..", ".*.", ".*."], "went to 1 with 1, least was 0"),
        (["*..", "", ".*."], "turn 3 comes as number 2"),
    ],
)
def test_turns_given_to_the_wrong_one_are_found(turns: list[str], what: str | None) -> None:
    outcomes = [
        {"turn": number if marks else None, "tried": [["all", marks]]}
        for number, marks in enumerate(turns, 1)
    ]
    found = unfair(reversed(outcomes))
    assert (found == []) if what is None else any(what in each for each in found), found
