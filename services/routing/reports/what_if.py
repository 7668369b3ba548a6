"""What if other rules had held: the leads of the last days, gone through again by a draft.

Both the draft and the rules in force are played over the same leads, with the shifts, calendars and
absences that there were, so that what differs is the rules. Managers behave as they did: whoever
got their third offer in those days took, in so many seconds, or let it pass, does so with the third
they get here; who got none behaves as the others did. Limits, muted segments and working hours are
those of today's policies.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

from services.routing.choosing.floor import Floor
from services.routing.choosing.lead import LeadFacts
from services.routing.choosing.presence import Facts, presence
from services.routing.choosing.rule_set import Prepared
from services.routing.choosing.sitting import decide
from services.routing.claim_window import end_of_window, in_working_time
from services.routing.policy import ClaimPolicy, MutingPolicy
from services.routing.terms import terms_at

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class PastLead:
    """Attributes: `held_for`: from when it was taken until it ended."""

    facts: LeadFacts
    received_at: datetime
    held_for: timedelta


@dataclass(slots=True)
class Tally:
    """What a manager or a team had.

    Attributes:
        leads: Taken.
        missed: Offers that lapsed.
        unanswered: Leads of which somebody was told while they held it untaken.
        waited_s: Of all leads taken, from when they came in.
        most_open: At one time.
    """

    leads: int = 0
    missed: int = 0
    unanswered: int = 0
    waited_s: float = 0.0
    most_open: int = 0

    @property
    def mean_wait_s(self) -> float:
        return self.waited_s / self.leads if self.leads else 0.0


@dataclass(slots=True)
class Played:
    """How it went."""

    managers: dict[UUID, Tally] = field(default_factory=lambda: defaultdict(Tally))
    teams: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    left: int = 0  # in the queue at the end


class Days:
    """The days to be played again: leads, managers and how they behaved.

    Args:
        delays: Of each manager, from offer to claim, in the order of offers; None: lapsed.
    """

    def __init__(
        self,
        leads: Sequence[PastLead],
        facts: Mapping[UUID, Facts],
        delays: Mapping[UUID, Sequence[timedelta | None]],
        *,
        claims: ClaimPolicy,
        muting: MutingPolicy,
        until: datetime,
    ) -> None:
        self.leads = leads
        self.facts = facts
        self.claims = claims
        self.muting = muting
        self.until = until
        everybody = [delay for each in delays.values() for delay in each]
        self.delays = {m: list(delays.get(m) or everybody) or [timedelta(0)] for m in facts}


def play(days: Days, floor: Floor, rules: Prepared) -> Played:
    """Go through the days by these rules; the floor is used up."""
    game = _Game(days, floor, rules)
    game.run()
    return game.played


class _Game:
    def __init__(self, days: Days, floor: Floor, rules: Prepared) -> None:
        self._days, self._floor, self._rules = days, floor, rules
        self._numbers: Iterator[int] = count()
        self._agenda: list[tuple[datetime, int, str, PastLead, Any]] = []
        self._until: list[datetime | None] = [datetime.min.replace(tzinfo=days.until.tzinfo)] * len(
            floor.seats
        )
        self._offers: dict[UUID, int] = defaultdict(int)
        self._recent: list[deque[datetime]] = [deque() for _ in floor.seats]
        self.played = Played()

    def run(self) -> None:
        for lead in self._days.leads:
            self._plan(lead.received_at, "offer", lead)
        while self._agenda and self._agenda[0][0] < self._days.until:
            at, _, what, lead, more = heapq.heappop(self._agenda)
            if what == "offer":
                self._offer(at, lead)
            elif what == "free":
                self._floor.seats[more].load -= 1
            else:
                self._lapse(at, lead, more)
        self.played.left = sum(what == "offer" for _, _, what, _, _ in self._agenda)

    def _plan(self, at: datetime, what: str, lead: PastLead, more: Any = None) -> None:
        heapq.heappush(self._agenda, (at, next(self._numbers), what, lead, more))

    def _offer(self, at: datetime, lead: PastLead) -> None:
        self._look_who_is_there(at)
        claims = self._days.claims
        outcome = decide(
            self._floor, lead.facts, self._rules, terms_at(claims, self._days.muting, at)
        )
        if outcome.manager_id is None:
            lead.facts.asked, lead.facts.hops, lead.facts.round = [], 0, 1
            again = timedelta(minutes=claims.queue_again_minutes)
            self._plan(outcome.muted_until or at + again, "offer", lead)
            return
        place = self._floor.place[outcome.manager_id]
        seat = self._floor.seats[place]
        self._recent[place].append(at)
        lead.facts.hops, lead.facts.round = lead.facts.hops + 1, outcome.round
        behaved = self._days.delays[seat.manager_id]
        delay = behaved[self._offers[seat.manager_id] % len(behaved)]
        self._offers[seat.manager_id] += 1
        tallies = (self.played.managers[seat.manager_id], self.played.teams[outcome.team or "all"])
        lapse = end_of_window(claims, at)
        is_taken = delay is not None and at + delay < lapse
        ends = at + delay if delay is not None and is_taken else lapse
        for tally in tallies:
            tally.most_open = max(tally.most_open, seat.load)
            tally.unanswered += at <= self._alert(lead) < ends
        if not is_taken:
            for tally in tallies:
                tally.missed += 1
            self._plan(lapse, "lapse", lead, place)
            return
        for tally in tallies:
            tally.leads += 1
            tally.waited_s += (ends - lead.received_at).total_seconds()
        self._plan(ends + lead.held_for, "free", lead, place)

    def _alert(self, lead: PastLead) -> datetime:
        """When somebody is told that nobody has taken it; after the end if nobody ever is."""
        minutes = self._days.claims.alert_minutes
        if minutes is None:
            return self._days.until
        return in_working_time(self._days.claims, lead.received_at, minutes)

    def _lapse(self, at: datetime, lead: PastLead, place: int) -> None:
        seat = self._floor.seats[place]
        seat.load -= 1
        lead.facts.asked = [*lead.facts.asked, seat.manager_id]
        self._offer(at, lead)

    def _look_who_is_there(self, at: datetime) -> None:
        for place, seat in enumerate(self._floor.seats):
            until = self._until[place]
            if until is not None and until <= at:
                found = presence(self._days.facts[seat.manager_id], at)
                seat.presence, self._until[place] = found.code, found.until
            recent = self._recent[place]
            while recent and recent[0] <= at - DAY:
                recent.popleft()
            seat.in_day = len(recent)
            seat.in_hour = sum(1 for each in recent if each > at - HOUR)
