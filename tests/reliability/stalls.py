"""How long an event had to wait: from its saying to its application by the ledger.

The longest latency is that, as it is. The longest stall is what the promise is about: the time that
an event waited although everybody it needed was there. Left out are the times in which a broker or
PostgreSQL was away or a process was stopped in its tracks, in which the worker that sends the event
was not there, and in which no ledger was.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from tests.reliability.nemesis import LEDGERS
from tests.reliability.outages import Outage, together
from tests.reliability.stored import Applied, Stored

NOTABLE_SECONDS = 1.0


def longest(
    stored: Stored, outages: Sequence[Outage], away: Mapping[str, Sequence[Outage]]
) -> tuple[float, float, str]:
    """Longest latency and longest stall in seconds, and whose the stall was."""
    no_ledger = together(away.get(LEDGERS[0], ()), away.get(LEDGERS[1], ()))
    speakers = {row.said_by for row in stored.applied}
    missing = {
        service: _merged([*outages, *no_ledger, *away.get(f"{service}-worker", ())])
        for service in speakers
    }
    latency = stall = 0.0
    whose = ""
    for row in stored.applied:
        said_at = (row.event.int >> 80) / 1000  # UUIDv7
        waited = row.at - said_at
        latency = max(latency, waited)
        if waited <= max(NOTABLE_SECONDS, stall):
            continue
        if (stalled := waited - _left_out(said_at, row.at, missing[row.said_by])) > stall:
            stall, whose = stalled, _told(row, said_at)
    return latency, stall, whose


def _told(row: Applied, said_at: float) -> str:
    return f"{row.topic} of {row.said_by}, said at {said_at:.1f}, applied at {row.at:.1f}"


def _merged(outages: Sequence[Outage]) -> list[tuple[float, float]]:
    """The same times without overlaps, in order."""
    merged: list[tuple[float, float]] = []
    for outage in sorted(outages, key=lambda o: o.began):
        if merged and outage.began <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], outage.ended))
        else:
            merged.append((outage.began, outage.ended))
    return merged


def _left_out(began: float, ended: float, missing: Sequence[tuple[float, float]]) -> float:
    """How much of a time somebody was missing in."""
    covered = 0.0
    for start, end in missing[max(0, bisect_right(missing, (began,)) - 1) :]:
        if start >= ended:
            break
        covered += max(0.0, min(end, ended) - max(start, began))
    return covered
