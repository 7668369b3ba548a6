"""The oracle: compares what the callers were promised, what was said and what is stored.

It knows no rule of Baza but its promises. Each finding names what it is about, so that a figure
that is not 0 can be followed up; the figures count findings.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from deploy.local.demo.lead_story import had_two_owners
from tests.reliability.journal import entries
from tests.reliability.stored import Stored
from tests.reliability.witness import Witness
from tests.routing.history import check, unfair

# Routing's words and contacts'.
SHOWN_AS = {
    "offered": "assigned",
    "claimed": "claimed",
    "converted": "converted",
    "closed": "closed",
}
OWNED = ("claimed", "converted", "closed")
SHOWN = 5  # findings of a kind that a report quotes
KINDS = (
    "lost",
    "phantom",
    "doubled",
    "order_violations",
    "two_owners",
    "no_owner",
    "timers_early",
    "timers_twice",
    "history_breaks",
    "turns_unfair",
)


@dataclass(slots=True)
class Truth:
    """What callers were answered.

    Attributes:
        deals_of: Each client's deals in the order in which they were answered.
    """

    clients: set[str] = field(default_factory=set)
    deals: set[str] = field(default_factory=set)
    deals_of: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    refunds: Counter[str] = field(default_factory=Counter)
    leads: set[str] = field(default_factory=set)
    forms: set[str] = field(default_factory=set)
    meetings: dict[str, dict[str, Any]] = field(default_factory=dict)
    claims: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    commands: int = 0

    @classmethod
    def of(cls, folder: Path) -> "Truth":
        """Read the journals."""
        truth = cls()
        for path in sorted(folder.glob("writer-*.jsonl")):
            for entry in entries(path):
                truth.commands += 1
                truth._take(entry)
        for claim in entries(folder / "claims.jsonl"):
            if claim["verb"] == "refused":
                truth.refused.append(claim["problem"])
            else:
                truth.claims.append(claim)
        return truth

    def _take(self, entry: dict[str, Any]) -> None:
        match entry["kind"]:
            case "clients":
                self.clients |= set(entry["ids"])
            case "client":
                self.clients.add(entry["id"])
            case "deals":
                for deal, client, _amount in entry["deals"]:
                    self.deals.add(deal)
                    self.deals_of[client].append(deal)
            case "refund":
                self.refunds[entry["deal"]] += entry["amount"]
            case "leads":
                self.leads |= set(entry["ids"])
            case "form":
                self.forms.add(entry["identity"])
            case "meeting":
                self.meetings[entry["id"]] = entry
            case "refused":
                self.refused.append(f"{entry['what']}: {entry['problem']}")
            case unknown:
                raise ValueError(unknown)


class Findings:
    """What does not agree, by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.every: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, what: str, things: Iterable[Any]) -> None:
        """Count things of a kind, and keep them."""
        found = [f"{what}: {thing}" for thing in things]
        self.counts[kind] += len(found)
        if found:
            self.every[kind] += found

    def shown(self) -> dict[str, list[str]]:
        """The first few of each kind."""
        return {kind: found[:SHOWN] for kind, found in self.every.items()}


def compare(truth: Truth, witness: Witness, stored: Stored) -> Findings:
    """Everything that should be and is not, or is and should not be."""
    findings = Findings()
    for compared in (_facts, _money, _leads, _ledger, _segments, _reminders, _order, _letters):
        compared(findings, truth, witness, stored)
    findings.add("lost", "not sent", range(stored.outbox))
    findings.add("lost", "refused though legal", truth.refused)
    return findings


Check = Callable[[Findings, Truth, Witness, Stored], None]


def _facts(findings: Findings, truth: Truth, witness: Witness, stored: Stored) -> None:
    said = defaultdict(set)
    for name, thing in witness.facts:
        said[name].add(thing)
    findings.add("doubled", "told by two events", _often(witness.facts))
    deals = truth.deals | witness.without_rate
    findings.add("lost", "deal not said", truth.deals - said["deal.closed"])
    findings.add("lost", "deal not scored", deals - stored.purchases.keys())
    findings.add("phantom", "deal nobody brought", said["deal.closed"] - deals)
    findings.add("phantom", "purchase nobody made", stored.purchases.keys() - deals)
    findings.add("lost", "client not stored", truth.clients - stored.clients)
    findings.add("lost", "client not said", stored.clients - said["client.created"])
    findings.add("phantom", "client said, not stored", said["client.created"] - stored.clients)
    known = truth.clients | witness.lead_clients
    findings.add("phantom", "client nobody made", stored.clients - known)
    for meeting in truth.meetings.values():
        versions = meeting["version"] + meeting["cancelled"]
        told = sum(
            witness.facts[name, f"{meeting['id']}/{version}"]
            for name in ("interaction.planned", "interaction.moved", "interaction.cancelled")
            for version in range(1, versions + 1)
        )
        findings.add("lost", "meeting's change not said", range(versions - told))


def _often(counter: Counter[Any]) -> Iterator[Any]:
    return (thing for thing, number in counter.items() if number > 1)


def _money(findings: Findings, truth: Truth, witness: Witness, stored: Stored) -> None:
    for deal, amount in truth.refunds.items():
        for where, given in (
            ("said", witness.given_back[deal]),
            ("scored", stored.purchases.get(deal, 0)),
        ):
            if given < amount:
                findings.add("lost", f"refund not {where}", [deal])
            elif given > amount:
                findings.add("doubled", f"refund {where} more than once", [deal])
    wrong = (
        deal for deal, given in stored.purchases.items() if given and deal not in truth.refunds
    )
    findings.add("phantom", "refund nobody made", wrong)


def _leads(findings: Findings, truth: Truth, witness: Witness, stored: Stored) -> None:
    received = {thing for name, thing in witness.facts if name == "lead.received"}
    findings.add("lost", "lead not stored", truth.leads - stored.lead_ids)
    findings.add("lost", "form without a lead", truth.forms - stored.leads_of_forms.keys())
    findings.add("doubled", "form with two leads", _often(stored.leads_of_forms))
    findings.add("phantom", "form nobody sent", stored.leads_of_forms.keys() - truth.forms)
    findings.add("lost", "lead not said", stored.lead_ids - received)
    findings.add("phantom", "lead said, not stored", received - stored.lead_ids)
    findings.add("lost", "lead not routed", received - stored.routed.keys())
    owned = len(stored.lead_ids) - len(truth.leads) - len(truth.forms)
    findings.add("phantom", "leads nobody brought", range(owned))
    for lead, history in witness.leads.items():
        findings.add("two_owners", "two owners at once", [lead] * had_two_owners(history))
        _clocks(findings, lead, history)
    findings.add("history_breaks", "lead", check(witness.leads, claims=()).wrong)
    findings.add("turns_unfair", "rotation", unfair(stored.outcomes))
    ownerless = (lead for lead, (state, _, _) in stored.routed.items() if state not in OWNED)
    findings.add("no_owner", "lead without an owner", ownerless)
    differ = [
        lead
        for lead, (state, manager, epoch) in stored.routed.items()
        if state in SHOWN_AS and stored.shown_leads.get(lead) != (SHOWN_AS[state], manager, epoch)
    ]
    findings.add("lost", "contacts shows the lead otherwise than routing has it", differ)
    kept = (manager for manager, (kept, counted) in stored.loads.items() if kept > counted)
    findings.add("doubled", "a manager's load holds more than their leads", kept)
    less = (manager for manager, (kept, counted) in stored.loads.items() if kept < counted)
    findings.add("lost", "a manager's load holds less than their leads", less)
    _claims(findings, truth, witness)


def _clocks(findings: Findings, lead: str, history: list[tuple[str, dict[str, Any]]]) -> None:
    until = {d["epoch"]: d["claim_until"] for name, d in history if name == "lead.assigned"}
    lapses = [data for name, data in history if name == "lead.unclaimed"]
    early = [d["epoch"] for d in lapses if _instant(d["occurred_at"]) < _instant(until[d["epoch"]])]
    findings.add("timers_early", f"offer of {lead} lapsed early", early)
    epochs = Counter(data["epoch"] for data in lapses)
    findings.add("timers_twice", f"offer of {lead} lapsed twice", _often(epochs))


def _instant(text: str) -> datetime:

    return datetime.fromisoformat(text)


def _claims(findings: Findings, truth: Truth, witness: Witness) -> None:
    """A claim that was answered with success is told, and nobody else has the same offer."""
    claimed = {
        (lead, data["epoch"]): data["manager_id"]
        for lead, history in witness.leads.items()
        for name, data in history
        if name == "lead.claimed"
    }
    winners: dict[tuple[str, int], set[str]] = defaultdict(set)
    for claim in truth.claims:
        if claim["verb"] not in ("claim", "take"):
            continue
        offer = (claim["lead"], claim["epoch"])
        winners[offer].add(claim["manager"])
        if offer not in claimed:
            findings.add("lost", "claim not said", [offer])
        elif claimed[offer] != claim["manager"]:
            findings.add("two_owners", "another has the lead that was claimed", [offer])
    both = (offer for offer, managers in winners.items() if len(managers) > 1)
    findings.add("two_owners", "two claims of one offer", both)


def _said_at(event: UUID) -> float:
    """Unix seconds; ids of events are UUIDv7."""
    return (event.int >> 80) / 1000


def _ledger(findings: Findings, truth: Truth, witness: Witness, stored: Stored) -> None:
    times = Counter(row.event for row in stored.applied)
    heard = {e for (topic, _), lane in witness.lanes.items() if topic != "rules" for e in lane}
    findings.add("lost", "event said, not applied", heard - times.keys())
    # Time goes on while the topics are read: what was said since may have been applied unheard.
    unheard = (e for e in times.keys() - heard if _said_at(e) < witness.since)
    findings.add("phantom", "event applied, not said", unheard)
    findings.add("doubled", "event applied twice", _often(times))
    applied: dict[tuple[str, str], list[UUID]] = defaultdict(list)
    for row in stored.applied:
        applied[row.topic, row.key].append(row.event)
    for lane, events in applied.items():
        order = {event: place for place, event in enumerate(witness.lanes.get(lane, ()))}
        places = [order[event] for event in dict.fromkeys(events) if event in order]
        if any(later < earlier for earlier, later in itertools.pairwise(places)):
            findings.add("order_violations", "applied in another order than said", [lane])


def _segments(findings: Findings, truth: Truth, witness: Witness, stored: Stored) -> None:
    for client, (seq, segment) in stored.scores.items():
        moves = witness.moves.get(client, [])
        missing = set(range(1, seq + 1)) - {number for number, _ in moves}
        findings.add("lost", f"segment change of {client}", missing)
        if not missing and moves and max(moves)[0] == seq and dict(moves)[seq] != segment:
            findings.add("phantom", "segment said is not the segment stored", [client])
        if stored.shown_segments.get(client, (0, None)) != (seq, segment) and seq:
            findings.add("lost", "contacts shows another segment", [client])
    for client, moves in witness.moves.items():
        known = stored.scores.get(client, (0, None))[0]
        findings.add("phantom", f"segment change of {client}", [n for n, _ in moves if n > known])


def _reminders(findings: Findings, truth: Truth, witness: Witness, stored: Stored) -> None:
    """Each planned reminder has exactly one end, and none comes before its time."""
    due: dict[tuple[str, str], Any] = {}
    wanted: Counter[tuple[str, str]] = Counter()
    for reminder, data in witness.reminders.items():
        if reminder not in witness.reminders_cancelled:
            at = (data["interaction_id"], data["channel"])
            wanted[at] += 1
            due[at] = min(due.get(at, _instant(data["due_at"])), _instant(data["due_at"]))
    ended = Counter((d["interaction_id"], d["channel"]) for _, d in witness.messages)
    for at in wanted.keys() | ended.keys():
        findings.add("lost", f"reminder {at}", range(wanted[at] - ended[at]))
        findings.add("timers_twice", f"reminder {at}", range(ended[at] - wanted[at]))
    for name, data in witness.messages:
        at = (data["interaction_id"], data["channel"])
        if name == "message.sent" and at in due and _instant(data["occurred_at"]) < due[at]:
            findings.add("timers_early", "reminder", [at])
    planned = {data["interaction_id"] for data in witness.reminders.values()}
    findings.add("lost", "meeting without reminders", truth.meetings.keys() - planned)
    cancelled = {m for m, told in truth.meetings.items() if told["cancelled"]}
    sent = {d["interaction_id"] for name, d in witness.messages if name == "message.sent"}
    findings.add("phantom", "reminder of a cancelled meeting", cancelled & sent)


def _order(findings: Findings, truth: Truth, witness: Witness, stored: Stored) -> None:
    for client, deals in truth.deals_of.items():
        said = [deal for deal in witness.deals_of.get(client, ()) if deal in truth.deals]
        if sorted(said) == sorted(deals) and said != deals:
            findings.add("order_violations", "deals said in another order than brought", [client])
    for client, moves in witness.moves.items():
        numbers = [number for number, _ in moves]
        if numbers != sorted(numbers):
            findings.add("order_violations", "segment changes out of order", [client])


def _letters(findings: Findings, truth: Truth, witness: Witness, stored: Stored) -> None:
    findings.add("dead_letters_unexpected", "no poison", stored.dead - witness.poison)
    findings.add("dead_letters_missing", "poison that was taken", witness.poison - stored.dead)
