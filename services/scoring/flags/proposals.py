"""Which shift of one bound would settle most flags, and whom else it would move.

Tried are the values at which a flagged client would just pass a bound: the client's own figure and
the next whole number behind it. A shift settles a flag when the client then is in the segment that
the manager named, or, where none was named, in another one. Pure; who else moves is counted by
the caller, with the draft that `shifted` gives.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from services.scoring.rfm import Cuts, Figures
from services.scoring.rules import Rules

Axis = Literal["recency_days", "frequency", "monetary_minor"]
AXES: tuple[Axis, ...] = ("recency_days", "frequency", "monetary_minor")


class Flagged(NamedTuple):
    """A client whose segment is called wrong."""

    figures: Figures
    segment: str
    should_be: str | None


@dataclass(frozen=True, slots=True)
class Shift:
    """One bound of one axis, elsewhere.

    Attributes:
        bound: Which of the four, from 0.
        settles: How many flags.
        spoils: Flagged clients who would leave a segment for one that was not asked for.
    """

    axis: Axis
    bound: int
    old: float
    new: float
    settles: int
    spoils: int


def best_shifts(flags: Sequence[Flagged], rules: Rules, *, most: int) -> list[Shift]:
    """The shifts that settle most flags, the best first; each bound once."""
    found: dict[tuple[Axis, int], Shift] = {}
    for axis, bound, value in _tried(flags, rules.cuts):
        cuts = shifted(rules.cuts, axis, bound, value)
        if cuts is None:
            continue
        settles, spoils = _weigh(flags, rules, cuts)
        old = getattr(rules.cuts, axis)[bound]
        shift = Shift(axis, bound, old, value, settles, spoils)
        best = found.get((axis, bound))
        if settles and (best is None or _rank(shift) < _rank(best)):
            found[axis, bound] = shift
    return sorted(found.values(), key=_rank)[:most]


def _rank(shift: Shift) -> tuple[int, float, Axis, int, float]:
    distance = abs(shift.new - shift.old) / (abs(shift.old) or 1)
    return (shift.spoils - shift.settles, distance, shift.axis, shift.bound, shift.new)


def shifted(cuts: Cuts, axis: Axis, bound: int, value: float) -> Cuts | None:
    """The cuts with one bound elsewhere; None when they would not ascend any more."""
    bounds = list(getattr(cuts, axis))
    bounds[bound] = value
    if value < 0 or bounds != sorted(bounds):
        return None
    given = {name: tuple(getattr(cuts, name)) for name in AXES} | {axis: tuple(bounds)}
    return Cuts(**given)


def _tried(flags: Iterable[Flagged], cuts: Cuts) -> Iterator[tuple[Axis, int, float]]:
    figures = Counter(flag.figures for flag in flags)
    for place, axis in enumerate(AXES):
        values = {float(each[place]) for each in figures}
        for bound, old in enumerate(getattr(cuts, axis)):
            for value in sorted(values | {value + 1 for value in values}):
                if value != old:
                    yield axis, bound, value


def _weigh(flags: Iterable[Flagged], rules: Rules, cuts: Cuts) -> tuple[int, int]:
    settles = spoils = 0
    for flag in flags:
        segment = rules.segments[cuts.rate(flag.figures)]
        if flag.should_be is not None and segment == flag.should_be:
            settles += 1
        elif segment != flag.segment:
            settles += flag.should_be is None
            spoils += flag.should_be is not None
    return settles, spoils
