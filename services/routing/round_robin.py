"""Whose turn it is: the free manager who has waited longest since their last turn.

A lead is not offered twice to the same manager in one round while others are left. The turns go on
where they were when managers come and go: who is new has waited longest of all.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from uuid import UUID


@dataclass(slots=True)
class Candidate:
    """A manager who is on shift.

    Attributes:
        last_turn: Number of the last turn they had; 0 if they never had one.
        open_leads: Leads they hold, offered or claimed.
    """

    manager_id: UUID
    last_turn: int
    open_leads: int


def choose(
    candidates: Iterable[Candidate],
    *,
    asked: Collection[UUID],
    most_open_leads: int,
    owner_id: UUID | None = None,
) -> Candidate | None:
    """The manager to offer a lead to; None when nobody is left to ask.

    Args:
        asked: Who was offered the lead in this round already and let it pass or gave it back.
        owner_id: Goes first if among the free.
    """
    free = [c for c in candidates if c.manager_id not in asked and c.open_leads < most_open_leads]
    for candidate in free:
        if candidate.manager_id == owner_id:
            return candidate
    return min(free, key=lambda c: (c.last_turn, c.manager_id), default=None)


def give_turn(chosen: Candidate, candidates: Iterable[Candidate]) -> int:
    """Note that a candidate had a turn; its number, one above all others."""
    turn = max(candidate.last_turn for candidate in candidates) + 1
    chosen.last_turn, chosen.open_leads = turn, chosen.open_leads + 1
    return turn
