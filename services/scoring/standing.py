"""A client's standing: purchase days, scores and segment, moved forward through time.

The standing is a fold over facts in the order they are heard. Before a fact of some day is applied,
the client ages up to that day, one boundary after another, each at its own instant; so it makes no
difference whether a timer or the next purchase came first, how events were cut into batches, or how
far the clock jumped. What a full rescoring computes from the bare purchases is the same, by test.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from services.scoring.rfm import Figures, Scores, monthly_run, run_ends_on
from services.scoring.rules import Rules


@dataclass(slots=True)
class Day:
    """What a client bought on one day and kept; `purchases` counts those not wholly returned."""

    purchases: int
    value_minor: int


class Change(NamedTuple):
    """A move from one segment to another; `seq` counts a client's moves without gaps."""

    client_id: UUID
    seq: int
    old_segment: str | None
    new_segment: str | None
    scores: Scores | None
    rule_version: int
    as_of: date
    changed_at: datetime
    reason: str


@dataclass(slots=True)
class Standing:
    """One client's purchases by day and what follows from them on the day `as_of`.

    Attributes:
        days: Days with a purchase that was not wholly returned, over all time.
        oldest_day: The first of them in the period; None: all are older.
        monthly_run: Months in a row with a purchase; None where no segment asks.
        due_on: First day on which the scores may change by age alone; None: never.
        override: Segment that an analyst has put the client into, up to the day `override_until`.
        is_settled: Was scored since it was loaded.
    """

    client_id: UUID
    days: dict[date, Day] = field(default_factory=dict)
    seq: int = 0
    segment: str | None = None
    scores: Scores | None = None
    figures: Figures | None = None
    last_day: date | None = None
    oldest_day: date | None = None
    monthly_run: int | None = None
    as_of: date = date.min
    due_on: date | None = None
    rule_version: int = 0
    override: str | None = None
    override_until: date | None = None
    is_settled: bool = False

    def buy(self, day: date, value_minor: int, *, at: datetime, rules: Rules) -> list[Change]:
        """Add a purchase heard at an instant; the moves that follow, ageing first."""
        today = rules.day_of(at)
        changes = self.age(today, rules)
        bought = self.days.get(day)
        if bought is None:
            bought = self.days[day] = Day(0, 0)
        bought.purchases += 1
        bought.value_minor += value_minor
        self.as_of = max(self.as_of, today, day)
        return changes + self._settle(rules, at, "purchase")

    def give_back(
        self, day: date, value_minor: int, *, is_full: bool, at: datetime, rules: Rules
    ) -> list[Change]:
        """Take money, or a whole purchase, off the day it was bought on."""
        changes = self.age(rules.day_of(at), rules)
        bought = self.days[day]
        bought.value_minor -= value_minor
        if is_full:
            bought.purchases -= 1
        if bought.purchases == 0:
            del self.days[day]
        self.as_of = max(self.as_of, rules.day_of(at))
        return changes + self._settle(rules, at, "reversal")

    def age(self, until: date, rules: Rules) -> list[Change]:
        """Let time pass up to and including a day, each boundary at its own midnight."""
        changes: list[Change] = []
        while self.due_on is not None and self.due_on <= until:
            self.as_of = self.due_on
            changes += self._settle(rules, rules.start_of(self.due_on), "ageing")
        return changes

    def apply_rules(self, rules: Rules, *, at: datetime) -> list[Change]:
        """Score anew under another rule version, after ageing up to the instant."""
        changes = self.age(rules.day_of(at), rules)
        self.as_of = max(self.as_of, rules.day_of(at))
        return changes + self._settle(rules, at, "rules")

    def put_into(
        self, segment: str | None, until: date | None, *, rules: Rules, at: datetime
    ) -> list[Change]:
        """Let an analyst's word hold up to a day; None takes it back."""
        changes = self.age(rules.day_of(at), rules)
        self.as_of = max(self.as_of, rules.day_of(at))
        self.override, self.override_until = segment, until
        return changes + self._settle(rules, at, "override")

    def recompute(self, rules: Rules, *, at: datetime) -> list[Change]:
        """Score anew from the purchases alone; a move means that the stored score was wrong."""
        return self._settle(rules, at, "rescoring")

    def _settle(self, rules: Rules, at: datetime, reason: str) -> list[Change]:
        before = self.segment
        self._score(rules)
        if self.segment == before:
            return []
        self.seq += 1
        return [
            Change(
                self.client_id,
                self.seq,
                before,
                self.segment,
                self.scores,
                rules.version,
                self.as_of,
                at,
                reason,
            )
        ]

    def _score(self, rules: Rules) -> None:
        self.rule_version = rules.version
        self.is_settled = True
        if not self.days:
            self.last_day = self.figures = self.scores = self.segment = self.due_on = None
            self.oldest_day = self.monthly_run = None
            return
        begin = self.as_of - rules.period  # a purchase on this day has just left the period
        frequency, monetary, oldest = 0, 0, None
        for day, bought in self.days.items():
            if day > begin:
                monetary += bought.value_minor
                frequency += 1
                if oldest is None or day < oldest:
                    oldest = day
        if rules.counts_purchases:
            frequency = sum(bought.purchases for day, bought in self.days.items() if day > begin)
        self.last_day, self.oldest_day = max(self.days), oldest
        self.figures = Figures((self.as_of - self.last_day).days, frequency, monetary)
        self.scores = rules.cuts.rate(self.figures)
        if rules.run_bounds:
            self.monthly_run = monthly_run(self.days, self.as_of)
            self.segment = rules.segment_of(self.scores, self.monthly_run)
        else:
            self.monthly_run = None
            self.segment = rules.segments[self.scores]
        if self.override_until is not None and self._is_overridden(rules):
            self.segment = self.override
        self.due_on = self._next_boundary(rules, self.last_day, self.figures.recency_days)

    def _is_overridden(self, rules: Rules) -> bool:
        """Whether an analyst's word holds; never for a segment that the rules do not have."""
        until = self.override_until
        return until is not None and self.as_of < until and self.override in rules.names

    def _next_boundary(self, rules: Rules, last_day: date, recency_days: int) -> date | None:
        bounds = []
        if self.oldest_day is not None:
            bounds.append(self.oldest_day + rules.period)
        bound = rules.cuts.next_recency_bound(recency_days)
        if bound is not None:
            bounds.append(last_day + timedelta(bound))
        if self.monthly_run:
            bounds.append(run_ends_on(last_day))
        if self.override_until is not None and self.as_of < self.override_until:
            bounds.append(self.override_until)
        return min(bounds, default=None)
