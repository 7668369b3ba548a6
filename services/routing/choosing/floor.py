"""The managers as a decision finds them: who is there, what they hold, whose turn it is.

What seldom changes is the roster; what changes with every decision is the floor's state. Both can
be recorded and made again from the record, which is how a decision is replayed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from services.routing.choosing.presence import INACTIVE
from services.routing.choosing.rule_set import EVERYBODY

SCALE = 1_000_000
NO_RESULTS = (0, 0, 0, 0)
BY_RESULT = "/"
"""In the name of a wheel whose strides go by results, not by weights; no team's code has it."""


@dataclass(slots=True)
class Seat:
    """One manager.

    Attributes:
        weight: Their share in a rotation, beside that of others.
        capacity: Open leads at most; None: as the policy has it.
        hourly, daily: Offers at most within any hour, within any 24 hours; None: no limit.
        languages, zones: Plain (casefolded); empty: any.
        skills: Level by skill.
        presence: One of the codes of `presence`.
        load: Leads they hold, offered or claimed.
        touches: Clients they have to speak with by today; counted where leads go by load.
        in_hour, in_day: Offers within the last hour and the last 24; counted where limited.
        results: Cold leads had and won, returning leads had and won.
    """

    manager_id: UUID
    weight: int = 1
    capacity: int | None = None
    hourly: int | None = None
    daily: int | None = None
    languages: frozenset[str] = frozenset()
    zones: frozenset[str] = frozenset()
    skills: Mapping[str, int] = field(default_factory=dict)
    presence: str = INACTIVE
    load: int = 0
    touches: int = 0
    in_hour: int = 0
    in_day: int = 0
    results: tuple[int, int, int, int] = NO_RESULTS


def stride_of(seat: Seat) -> int:
    """How far one turn brings a seat: who weighs twice as much comes half as far."""
    return SCALE // seat.weight


@dataclass(slots=True)
class Wheel:
    """The turns of a team.

    Attributes:
        passed: How far each seat has come: every turn adds its stride, the smaller the heavier it
            weighs. The least is next.
        turns: Number of each seat's last turn; 0 if they never had one.
        heads: How far before `reached` each seat starts: the more, the heavier it weighs. Starting
            together, who weighs nine would get nothing before all others had theirs, and then nine
            in a row.
        reached: How far the turns have come. A newcomer starts there, and so does who was away
            (`attendance.py`): they come first, but do not get all that they have missed.
        turn: Number of the last turn.
    """

    passed: list[int]
    turns: list[int]
    heads: Sequence[int]
    reached: int = 0
    turn: int = 0

    def give(self, place: int, stride: int) -> int:
        """Note that a seat had its turn; the turn's number."""
        at = self.stands(place)
        self.passed[place] = at + stride
        self.reached = max(self.reached, at)
        self.turn += 1
        self.turns[place] = self.turn
        return self.turn

    def stands(self, place: int) -> int:
        """Where a seat stands in the order of turns."""
        passed = self.passed[place]
        if self.turns[place] or passed > self.reached:
            return passed
        return self.reached - self.heads[place]

    def order(self, places: Iterable[int]) -> list[tuple[int, int, int]]:
        """Where each of these seats stands, their last turn, and the seat; the least is next."""
        passed, turns, heads, reached = self.passed, self.turns, self.heads, self.reached
        return [
            (passed[n] if turns[n] or passed[n] > reached else reached - heads[n], turns[n], n)
            for n in places
        ]

    def first(self, places: Iterable[int]) -> int:
        """Which of these seats, in their order, is next: that of `min(order(places))`."""
        passed, turns, heads, reached = self.passed, self.turns, self.heads, self.reached
        first, least = -1, 0
        for n in places:
            stands = passed[n]
            if stands <= reached and not turns[n]:
                stands = reached - heads[n]
            if first < 0 or stands < least or (stands == least and turns[n] < turns[first]):
                first, least = n, stands
        return first


class Floor:
    """All seats, in the order of their ids, their teams and wheels.

    Args:
        gives_heads: Whether seats start the earlier the heavier they weigh (engine 1 had it not).
    """

    def __init__(
        self,
        seats: Sequence[Seat],
        teams: Mapping[str, Iterable[UUID]],
        *,
        gives_heads: bool = True,
    ) -> None:
        self.seats = list(seats)
        self.place = {seat.manager_id: place for place, seat in enumerate(self.seats)}
        self.teams = {
            name: sorted(self.place[m] for m in members if m in self.place)
            for name, members in teams.items()
        }
        self.teams[EVERYBODY] = list(range(len(self.seats)))
        self.wheels: dict[str, Wheel] = {}
        # What `sitting.py` has found out once: by what a lead asks for, why each of a team may
        # never have it. It follows from the roster alone.
        self.unfit: dict[tuple[object, ...], Sequence[str | None]] = {}
        self._no_heads = [0] * len(self.seats)
        self._heads = self._no_heads
        if gives_heads:
            self._heads = [(SCALE - stride_of(seat)) // 2 for seat in self.seats]
        self._has_limits = any(s.hourly is not None or s.daily is not None for s in self.seats)
        self.counted()
        self._before: dict[str, list[Any]] | None = None  # wheels as they were when first touched

    def counted(self) -> None:
        """Call it when touches or results of the seats have been counted: records tell of them."""
        self._has_touches = any(seat.touches for seat in self.seats)
        self._has_results = any(seat.results != NO_RESULTS for seat in self.seats)

    def wheel(self, name: str) -> Wheel:
        """A wheel by its name; a new one has given no turns."""
        wheel = self.wheels.get(name)
        if wheel is None:
            wheel = self.wheels[name] = self._new_wheel(name)
        if self._before is not None and name not in self._before:
            self._before[name] = [wheel.reached, wheel.turn, wheel.passed[:], wheel.turns[:]]
        return wheel

    def _new_wheel(self, name: str) -> Wheel:
        heads = self._no_heads if BY_RESULT in name else self._heads
        return Wheel([0] * len(self.seats), [0] * len(self.seats), heads)

    def begin_record(self) -> dict[str, Any]:
        """The state as it is now; wheels get into it when they are first touched."""
        self._before = {}
        seats = self.seats
        state: dict[str, Any] = {
            "presence": "".join([seat.presence for seat in seats]),
            "loads": [seat.load for seat in seats],
            "wheels": self._before,
        }
        if self._has_touches:
            state["touches"] = [seat.touches for seat in seats]
        if self._has_limits:
            state["in_hour"] = [seat.in_hour for seat in seats]
            state["in_day"] = [seat.in_day for seat in seats]
        if self._has_results:
            state["results"] = [seat.results for seat in seats]
        return state

    def touched(self) -> Iterable[str]:
        """Names of the wheels that were touched since `begin_record`."""
        return self._before or ()

    def roster(self) -> dict[str, Any]:
        """What seldom changes, for a record."""
        return {
            "seats": [
                {
                    "manager_id": str(seat.manager_id),
                    "weight": seat.weight,
                    "capacity": seat.capacity,
                    "hourly": seat.hourly,
                    "daily": seat.daily,
                    "languages": sorted(seat.languages),
                    "zones": sorted(seat.zones),
                    "skills": dict(sorted(seat.skills.items())),
                }
                for seat in self.seats
            ],
            "teams": {
                name: [str(self.seats[place].manager_id) for place in members]
                for name, members in sorted(self.teams.items())
                if name != EVERYBODY
            },
        }

    @classmethod
    def recorded(cls, roster: Mapping[str, Any], inputs: Mapping[str, Any]) -> "Floor":
        """The floor as the decisions of recorded inputs found it."""
        seats = [
            Seat(
                **{
                    **told,
                    "manager_id": UUID(told["manager_id"]),
                    "languages": frozenset(told["languages"]),
                    "zones": frozenset(told["zones"]),
                }
            )
            for told in roster["seats"]
        ]
        nothing = [0] * len(seats)
        for place, seat in enumerate(seats):
            seat.presence = inputs["presence"][place]
            seat.load = inputs["loads"][place]
            seat.touches = inputs.get("touches", nothing)[place]
            seat.in_hour = inputs.get("in_hour", nothing)[place]
            seat.in_day = inputs.get("in_day", nothing)[place]
            if "results" in inputs:
                had_cold, won_cold, had, won = inputs["results"][place]
                seat.results = (had_cold, won_cold, had, won)
        teams = {name: map(UUID, members) for name, members in roster["teams"].items()}
        floor = cls(seats, teams, gives_heads=inputs["engine"] > 1)
        for name, (reached, turn, passed, turns) in inputs["wheels"].items():
            wheel = floor.wheel(name)
            wheel.reached, wheel.turn, wheel.passed, wheel.turns = reached, turn, passed, turns
        return floor
