"""What a benchmark tells: one figure beside its limit, measured in turn in the same run."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

import orjson


@dataclass(frozen=True, slots=True)
class Figure:
    """Medians of several rounds; `ratio` is the median of each round's own ratio."""

    name: str
    value: int
    unit: str
    limit: int
    ratio: float

    @classmethod
    def of(cls, name: str, unit: str, pairs: Sequence[tuple[float, float]]) -> Self:
        """From rounds of (limit, ours), each measured one right after the other."""
        return cls(
            name=name,
            value=round(statistics.median(ours for _, ours in pairs)),
            unit=unit,
            limit=round(statistics.median(limit for limit, _ in pairs)),
            ratio=round(statistics.median(ours / limit for limit, ours in pairs), 3),
        )

    def line(self) -> str:
        return orjson.dumps(asdict(self)).decode() + "\n"
