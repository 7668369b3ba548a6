"""How long an event had to wait: from its saying to its application by the ledger.

The longest latency is that, as it is. The longest stall leaves out the time in which nothing could
go on: brokers away, PostgreSQL down, a process stopped in its tracks. Kills of one process or one
broker are not left out: replacing those in time is what is promised.
"""

from collections.abc import Sequence

from tests.reliability.nemesis import Outage
from tests.reliability.stored import Stored

NOTABLE_SECONDS = 1.0


def longest(stored: Stored, outages: Sequence[Outage]) -> tuple[float, float]:
    """Longest latency and longest stall, seconds."""
    latency = stall = 0.0
    for event, _, _, applied_at in stored.applied:
        said_at = (event.int >> 80) / 1000  # UUIDv7
        waited = applied_at - said_at
        latency = max(latency, waited)
        if waited > NOTABLE_SECONDS and waited > stall:
            stall = max(stall, waited - _left_out(said_at, applied_at, outages))
    return latency, max(stall, min(latency, NOTABLE_SECONDS))


def _left_out(began: float, ended: float, outages: Sequence[Outage]) -> float:
    """How much of a time was within outages; overlapping ones count once."""
    covered, reached = 0.0, began
    for outage in sorted(outages, key=lambda o: o.began):
        start, end = max(outage.began, reached), min(outage.ended, ended)
        if end > start:
            covered += end - start
            reached = end
    return covered
