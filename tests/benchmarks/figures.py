"""What a benchmark tells: one figure beside its limit, measured in turn in the same run."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Self

import orjson


@dataclass(frozen=True, slots=True)
class Figure:
    """Medians of several rounds; `ratio` is the median of each round's own ratio.

    Attributes:
        spread: Of the rounds' ratios: (largest - smallest) / median.
        best: The best round's ratio. Only a bar that even this one misses counts as missed: a
            neighbour on the machine makes rounds slower, never faster.
        bar: What must be reached, as a ratio.
        aim: What should be reached.
        low_is_good: The figure is a time: `bar` and `aim` are upper bounds.
    """

    name: str
    value: float
    unit: str
    limit: float
    ratio: float
    spread: float
    best: float
    bar: float | None = None
    aim: float | None = None
    low_is_good: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        unit: str,
        pairs: Sequence[tuple[float, float]],
        *,
        bar: float | None = None,
        aim: float | None = None,
        low_is_good: bool = False,
    ) -> Self:
        """From rounds of (limit, ours), each measured one right after the other."""
        ratios = [ours / limit for limit, ours in pairs]
        ratio = statistics.median(ratios)
        return cls(
            name=name,
            value=_short(statistics.median(ours for _, ours in pairs)),
            unit=unit,
            limit=_short(statistics.median(limit for limit, _ in pairs)),
            ratio=round(ratio, 3),
            spread=round((max(ratios) - min(ratios)) / ratio, 2),
            best=round(min(ratios) if low_is_good else max(ratios), 3),
            bar=bar,
            aim=aim,
            low_is_good=low_is_good,
        )

    @classmethod
    def of_lateness(
        cls, name: str, late_ms: Sequence[float], *, limit_ms: float, parts: int
    ) -> Self:
        """The 99th percentile beside a limit; the spread is that of so many stretches."""
        length = len(late_ms) // parts
        p99s = [p99(late_ms[n * length : (n + 1) * length]) for n in range(parts)]
        whole = p99(late_ms)
        return cls(
            name=name,
            value=round(whole, 1),
            unit="ms p99",
            limit=limit_ms,
            ratio=round(whole / limit_ms, 3),
            spread=round((max(p99s) - min(p99s)) / statistics.median(p99s), 2),
            best=round(min(p99s) / limit_ms, 3),
            bar=1.0,
            aim=0.5,
            low_is_good=True,
        )

    @classmethod
    def of_latency(
        cls,
        name: str,
        floor: Sequence[Sequence[float]],
        ours: Sequence[Sequence[float]],
        *,
        bar: float,
        aim: float,
    ) -> Self:
        """p99 of all rounds together beside that of the floor; milliseconds, a list for each round.

        A moment in which the machine stands still is the p99 of its round, and in the median of two
        rounds' ratios half of the figure; of both rounds' events it is a part of the slowest.
        """
        value, limit = p99(list(chain(*ours))), p99(list(chain(*floor)))
        rounds = [p99(mine) / p99(least) for mine, least in zip(ours, floor, strict=True)]
        return cls(
            name=name,
            value=_short(value),
            unit="ms p99",
            limit=_short(limit),
            ratio=round(value / limit, 3),
            spread=round((max(rounds) - min(rounds)) / (value / limit), 2),
            best=round(min(rounds), 3),
            bar=bar,
            aim=aim,
            low_is_good=True,
        )

    def line(self) -> str:
        """The figure as a line of JSON."""
        names = ("name", "value", "unit", "limit", "ratio", "spread")
        return orjson.dumps({name: getattr(self, name) for name in names}).decode() + "\n"

    def fails(self) -> bool:
        """Whether the bar was missed by every round."""
        return self.bar is not None and not self._reaches(self.best, self.bar)

    def verdict(self) -> str | None:
        """What is missed, in one line; None when the aim is reached."""
        if self.bar is not None and not self._reaches(self.ratio, self.bar):
            excuse = "" if self.fails() else f", but the best round's {self.best} reaches it"
            return f"{self.name}: {self.ratio} misses the bar of {self.bar}{excuse}\n"
        if self.aim is not None and not self._reaches(self.ratio, self.aim):
            return f"{self.name}: {self.ratio} misses the aim of {self.aim}\n"
        return None

    def _reaches(self, ratio: float, goal: float) -> bool:
        return ratio <= goal if self.low_is_good else ratio >= goal


def p99(values: Sequence[float]) -> float:
    """The 99th percentile, in the values' unit."""
    return statistics.quantiles(values, n=100)[98]


def _short(value: float) -> float:
    return round(value) if value >= 100 else round(value, 1)
