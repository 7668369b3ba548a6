"""The demo's checks can fail: each wrong fact is named, and the exit code follows."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from deploy.local.demo import cdnow
from deploy.local.demo.lead_story import LeadFacts, had_two_owners
from deploy.local.demo.meeting_story import ReminderFacts
from deploy.local.demo.purchases_story import PurchaseFacts
from deploy.local.demo.report import CLIENTS, PURCHASE_DAYS, PURCHASES, Report
from deploy.local.demo.rules_story import RuleFacts

ANN, BEN = "ann", "ben"


def good() -> Report:
    return Report(
        purchases=PurchaseFacts(
            clients=CLIENTS,
            deals_closed=PURCHASES,
            purchase_days=PURCHASE_DAYS,
            table={"segments": [{"segment": "lost", "clients": CLIENTS}]},
        ),
        rules=RuleFacts(previewed=7, moved=7),
        leads=LeadFacts(received=12, assigned=12, claimed=12, unclaimed=5, reassigned=5),
        reminders=ReminderFacts(email=2, second_channel=2),
        events={"deals": PURCHASES},
        seq_gaps=0,
        late_mismatches=0,
    )


def test_when_everything_is_right_nothing_is_named() -> None:
    assert list(good().faults()) == []


def _set(place: str, name: str, value: Any) -> Callable[[Report], None]:
    def spoil(report: Report) -> None:
        setattr(getattr(report, place) if place else report, name, value)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_set("purchases", "clients", 1), "clients: 1 instead of 23570"),
        (_set("purchases", "deals_closed", 1), "deals closed"),
        (_set("purchases", "purchase_days", 67_590), "purchase days"),
        (_set("purchases", "clients_without_segment", 1), "without a segment"),
        (_set("purchases", "rescoring_mismatches", 1), "rescoring mismatches"),
        (_set("purchases", "segments_current_mismatches", 1), "segments.current"),
        (_set("rules", "mismatches", 1), "than previewed"),
        (_set("rules", "moved", 6), "moved by new rules: 6 instead of 7"),
        (_set("", "late_mismatches", 2), "rescoring mismatches: 2"),
        (_set("", "seq_gaps", 1), "gaps in seq"),
        (_set("", "events", {"deals": 1}), "topic deals"),
        (_set("leads", "two_owners", 1), "leads"),
        (_set("leads", "no_owner", 1), "leads"),
        (_set("leads", "forged_accepted", 1), "forged"),
        (_set("reminders", "for_cancelled", 1), "reminders"),
        (_set("reminders", "sent_at_the_old_time", 1), "old time"),
    ],
)
def test_each_wrong_fact_is_named(spoil: Callable[[Report], None], told: str) -> None:
    report = good()
    spoil(report)

    faults = list(report.faults())

    assert len(faults) == 1
    assert told in faults[0]


def event(name: str, manager: str) -> tuple[str, dict[str, Any]]:
    return f"lead.{name}", {"manager_id": manager, "lead_id": str(uuid4())}


@pytest.mark.parametrize(
    ("history", "two"),
    [
        ([event("assigned", ANN), event("claimed", ANN)], False),
        ([event("assigned", ANN), event("unclaimed", ANN), event("assigned", BEN)], False),
        ([event("assigned", ANN), event("released", ANN), event("assigned", BEN)], False),
        ([event("assigned", ANN), event("assigned", BEN)], True),
        ([event("assigned", ANN), event("claimed", BEN)], True),
        ([event("assigned", ANN), event("unclaimed", BEN)], True),
        ([event("assigned", ANN), event("claimed", ANN), event("assigned", BEN)], True),
    ],
    ids=[
        "claimed",
        "lapsed",
        "released",
        "given twice",
        "claimed by another",
        "wrong lapse",
        "given after a claim",
    ],
)
def test_two_owners_are_seen(history: list[tuple[str, dict[str, Any]]], two: bool) -> None:
    assert had_two_owners(history) is two


def test_the_cdnow_file_is_what_is_published() -> None:
    history = cdnow.purchases()

    assert len(history) == PURCHASES
    assert len({purchase.customer for purchase in history}) == CLIENTS
    assert len({(purchase.customer, purchase.day) for purchase in history}) == PURCHASE_DAYS
    assert sum(purchase.amount_minor == 0 for purchase in history) == 80
    assert len({purchase.external_id for purchase in history}) == PURCHASES
