"""The demo's facts: what must hold, what goes into report.json."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from deploy.local.demo.lead_story import LEADS, LEFT_UNCLAIMED, LeadFacts
from deploy.local.demo.meeting_story import ReminderFacts
from deploy.local.demo.purchases_story import PurchaseFacts
from deploy.local.demo.rules_story import RuleFacts

CLIENTS = 23_570
PURCHASES = 69_659
PURCHASE_DAYS = 67_591


@dataclass(slots=True)
class Report:
    """Everything the demo found out, and whether it is what it must be."""

    purchases: PurchaseFacts
    rules: RuleFacts
    leads: LeadFacts
    reminders: ReminderFacts
    events: dict[str, int]
    seq_gaps: int
    late_mismatches: int
    seconds: dict[str, float] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The content of report.json."""
        table = (self.purchases.table or {"segments": []})["segments"]
        return {
            "clients": self.purchases.clients,
            "purchase_days": self.purchases.purchase_days,
            "deals_closed": self.purchases.deals_closed,
            "segments": {line["segment"]: line["clients"] for line in table},
            "clients_without_segment": self.purchases.clients_without_segment,
            "rescoring_mismatches": self.purchases.rescoring_mismatches + self.late_mismatches,
            "segments_current_mismatches": self.purchases.segments_current_mismatches,
            "deals_per_second": round(self.purchases.deals_per_second),
            "rule_change": {
                "previewed": self.rules.previewed,
                "moved": self.rules.moved,
                "mismatches": self.rules.mismatches,
            },
            "leads": self.leads.report(),
            "reminders": self.reminders.report(),
            "events": self.events,
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }

    def write(self, path: Path) -> None:
        """Write report.json."""
        path.write_bytes(orjson.dumps(self.document(), option=orjson.OPT_INDENT_2) + b"\n")

    def faults(self) -> Iterator[str]:
        """What is not as it must be, in words."""
        for what, is_, must_be in self._expected():
            if is_ != must_be:
                yield f"{what}: {is_} instead of {must_be}"

    def _expected(self) -> Iterator[tuple[str, object, object]]:
        told = self.document()
        segments = sum(told["segments"].values())
        yield "clients", told["clients"], CLIENTS
        yield "deals closed", told["deals_closed"], PURCHASES
        yield "purchase days", told["purchase_days"], PURCHASE_DAYS
        yield "clients in segments", segments, CLIENTS
        yield "clients without a segment", told["clients_without_segment"], 0
        yield "rescoring mismatches", told["rescoring_mismatches"], 0
        yield "segments.current mismatches", told["segments_current_mismatches"], 0
        yield "clients in other segments than previewed", self.rules.mismatches, 0
        yield "clients moved by new rules", self.rules.moved, self.rules.previewed
        yield "a change of rules that moves somebody", self.rules.previewed > 0, True
        yield "gaps in seq", self.seq_gaps, 0
        yield "deal.closed and others in topic deals", told["events"].get("deals"), PURCHASES
        yield (
            "leads",
            told["leads"],
            {
                "received": LEADS,
                "assigned": LEADS,
                "claimed": LEADS,
                "unclaimed": LEFT_UNCLAIMED,
                "reassigned": LEFT_UNCLAIMED,
                "two_owners": 0,
                "no_owner": 0,
            },
        )
        yield "forged webhooks accepted", self.leads.forged_accepted, 0
        yield (
            "reminders",
            told["reminders"],
            {
                "email": 2,
                "second_channel": 2,
                "for_cancelled": 0,
            },
        )
        yield "reminders at the old time of a moved meeting", self.reminders.sent_at_the_old_time, 0
