"""What counts as a stall: the time that an event waited although everybody was there."""

from uuid import UUID

from tests.reliability import stalls
from tests.reliability.outages import Outage
from tests.reliability.stored import Applied, Stored


def applied(said_at: float, at: float, by: str = "contacts") -> Applied:
    return Applied(UUID(int=int(said_at * 1000) << 80), "deals", "k", by, at)


def away(who: str, began: float, ended: float) -> Outage:
    return Outage(who, began, ended)


def test_time_without_brokers_or_without_the_sender_is_left_out_once() -> None:
    stored = Stored(applied=[applied(100, 130)])
    outages = [away("kafka", 102, 112), away("pause", 110, 115)]

    latency, stall, whose = stalls.longest(
        stored, outages, {"contacts-worker": [away("w", 114, 120), away("w", 200, 300)]}
    )

    assert (latency, stall) == (30, 12)
    assert whose.startswith("deals of contacts")


def test_another_services_worker_and_one_ledger_of_two_excuse_nothing() -> None:
    stored = Stored(applied=[applied(100, 130)])
    seen = {"scoring-worker": [away("w", 100, 130)], "ledger-1": [away("l", 100, 130)]}

    assert stalls.longest(stored, [], seen)[1] == 30


def test_both_ledgers_away_are_left_out_while_both_are() -> None:
    stored = Stored(applied=[applied(100, 130)])
    seen = {"ledger-1": [away("l", 100, 120)], "ledger-2": [away("l", 110, 130)]}

    assert stalls.longest(stored, [], seen)[1] == 20
