"""A checker of recorded history: what was said of each lead, in the order of saying.

It knows nothing of how routing works, only what it promises: at every moment one live owner at
most, at the end exactly one, each lapse moves the lead once, and who was told that they have a lead
has it until they are told otherwise.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Said = Sequence[tuple[str, Mapping[str, Any]]]
MAY_HAVE_IT = ".*"  # marks of who was free for a lead, and of whom of them it went to


@dataclass
class Verdict:
    """What is wrong, each with its lead; and what was counted on the way."""

    wrong: list[str] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)

    def add(self, lead: str, what: str) -> None:
        self.wrong.append(f"{lead}: {what}")


def check(history: Mapping[str, Said], *, claims: Iterable[tuple[str, int, str]]) -> Verdict:
    """Everything that must not be.

    Args:
        claims: Lead, epoch and manager of each claim that was answered with success.
    """
    verdict = Verdict()
    told: dict[tuple[str, int], str] = {}
    for lead, said in history.items():
        _one_lead(verdict, lead, said, told)
    answered: dict[tuple[str, int], str] = {}
    for lead, epoch, manager in claims:
        if told.get((lead, epoch)) != manager:
            verdict.add(lead, f"claim of epoch {epoch} was answered and not said")
        if answered.setdefault((lead, epoch), manager) != manager:
            verdict.add(lead, f"two managers were told that epoch {epoch} is theirs")
    return verdict


class _Lead:
    """One lead's history, step by step."""

    def __init__(self, verdict: Verdict, lead: str, told: dict[tuple[str, int], str]) -> None:
        self._verdict, self._lead, self._told = verdict, lead, told
        self.holder: str | None = None
        self.epoch, self.is_claimed, self.moves_owed, self.is_over = 0, False, 0, False

    def wrong(self, what: str) -> None:
        self._verdict.add(self._lead, what)

    def assigned(self, manager: str, epoch: int) -> None:
        if self.holder is not None:
            self.wrong(f"assigned at epoch {epoch} while {self.holder} has it")
        if epoch != self.epoch + 1:
            self.wrong(f"epoch {epoch} after {self.epoch}")
        self.holder, self.epoch, self.is_claimed, self.moves_owed = manager, epoch, False, 0

    def claimed(self, manager: str, epoch: int) -> None:
        if (manager, epoch) != (self.holder, self.epoch) or self.is_claimed:
            self.wrong(f"claimed by {manager} at epoch {epoch}")
        self.is_claimed = True
        self._told[self._lead, epoch] = manager

    def ended(self, name: str, manager: str, epoch: int) -> None:
        if (manager, epoch) != (self.holder, self.epoch):
            self.wrong(f"{name} of {manager} at epoch {epoch}")
        if name == "lead.unclaimed" and self.is_claimed:
            self.wrong(f"lapsed at epoch {epoch} though claimed")
        self.holder, self.is_claimed, self.moves_owed = None, False, self.moves_owed + 1
        if self.moves_owed > 1:
            self.wrong(f"moved twice from epoch {epoch}")

    def over(self, name: str, manager: str | None, epoch: int) -> None:
        if (manager, epoch) != (self.holder, self.epoch):
            self.wrong(f"{name} of {manager} at epoch {epoch}")
        if name == "lead.converted" and not self.is_claimed:
            self.wrong(f"converted at epoch {epoch} though never claimed")
        self.is_over = True

    def escalated(self) -> None:
        if self.holder is not None:
            self.wrong(f"in the queue while {self.holder} has it")
        self.moves_owed = 0


def _one_lead(verdict: Verdict, lead: str, said: Said, told: dict[tuple[str, int], str]) -> None:
    at = _Lead(verdict, lead, told)
    for name, data in said:
        verdict.names[name] += 1
        if at.is_over:
            at.wrong(f"{name} after its end")
        match name:
            case "lead.assigned":
                at.assigned(data["manager_id"], data["epoch"])
            case "lead.claimed":
                at.claimed(data["manager_id"], data["epoch"])
            case "lead.unclaimed" | "lead.released":
                at.ended(name, data["manager_id"], data["epoch"])
            case "lead.escalated":
                at.escalated()
            case "lead.converted" | "lead.closed":
                at.over(name, data["manager_id"], data["epoch"])
    if not at.is_claimed and not at.is_over:
        at.wrong("nobody has it at the end")


def unfair(outcomes: Iterable[Mapping[str, Any]]) -> list[str]:
    """Turns of the one rotation of equals that were given to one who had more than another.

    Who was asked for a lead already cannot get it again in that round, so turns are not given
    strictly around; but among those who could have it, it goes to whoever had the fewest. Where
    nobody was ever passed over, that is a spread of one.

    Args:
        outcomes: Of the sittings, as they were recorded; all were there from the first on.
    """
    found: list[str] = []
    had: Counter[int] = Counter()
    given = sorted((o for o in outcomes if o["turn"] is not None), key=lambda o: int(o["turn"]))
    for number, outcome in enumerate(given, 1):
        if outcome["turn"] != number:
            found.append(f"turn {outcome['turn']} comes as number {number}")
            break
        marks: str = outcome["tried"][-1][1]
        chosen = marks.index("*")
        least = min(had[place] for place, mark in enumerate(marks) if mark in MAY_HAVE_IT)
        if had[chosen] != least:
            found.append(f"turn {number} went to {chosen} with {had[chosen]}, least was {least}")
        had[chosen] += 1
    return found
