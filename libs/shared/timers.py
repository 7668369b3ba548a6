"""Timers: due rows, fired once, by any number of workers.

A timer lives on the row it belongs to: a `due_at` column with a partial index. `fire` claims due
rows with FOR UPDATE SKIP LOCKED, changes their state and says their events, all in one
transaction; a crash leaves them due. Between two firings the loop sleeps until the next row is due;
a commit anywhere in the service wakes it, because that may have made a row due earlier. Loops that
are woken together look together: one statement asks for all of them (`Lookout`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any, NamedTuple

import structlog
from prometheus_client import Counter, Histogram

from libs.shared import failpoints
from libs.shared.clock import Clock
from libs.shared.database import Connection, Database, TransientError, is_transient
from libs.shared.wake import Bell

log = structlog.get_logger()

LONGEST_SLEEP_SECONDS = 1.0  # the floor when a wake-up was lost
LOOK_AGAIN_SECONDS = 0.005  # at most so often because of commits
LOOK_SELDOM_SECONDS = 0.04  # where one commit after another has made nothing due
# The same for commits of other processes. Each of many workers hears of all of them, and one is
# enough to look: whoever finds nothing leaves it to the others more and more.
LEAVE_TO_OTHERS_SECONDS = 0.5
RETRY_SECONDS = 0.5
HELD_BY_OTHERS_SECONDS = 0.05
KNOWN_AHEAD = 50  # rows fired alone, each brought along by the one before it, between two looks
MANY = 100  # rows fired at once are a backlog, which two lanes work off
LANES = 2
# Due because it is there: no instant, no lateness. In SQL timestamptz 'epoch'.
AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)

FIRED = Counter("timer_fired_total", "Due rows fired", ["timer"])
LATENESS = Histogram(
    "timer_lateness_seconds",
    "From due to the start of its firing, of the oldest row of a batch",
    ["timer"],
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30, 300),
)

Fire = Callable[[Connection, datetime], Awaitable[int]]


class Ahead(NamedTuple):
    """What a look has found.

    Attributes:
        due_at: When the first row is due; None when none is waiting.
        now: The database's own time at that moment, where the look has asked for it.
        rows: The first rows as they stand, for firing one alone.
    """

    due_at: datetime | None
    now: datetime | None = None
    rows: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Alone:
    """How one row is fired without a transaction: a look that brings it along, and one statement.

    Attributes:
        look: Take the place of `next_due`.
        fire: Fire the row that was found, if no other is due at the given instant, in a statement
            that commits by itself and does nothing if anything it goes by has changed since. What
            comes after it, seen by the same statement; None: nothing is done. It need not see what
            was made due late at an earlier instant: the next look does, `KNOWN_AHEAD` rows later
            at most.
    """

    look: Callable[[Connection], Awaitable[Ahead]]
    fire: Callable[[Connection, datetime, Ahead], Awaitable[Ahead | None]]


@dataclass(frozen=True, slots=True)
class Timer:
    """A kind of due row.

    Attributes:
        name: For logs and metrics.
        next_due: SQL of when the first row is due; null when none is waiting. Must use an index.
        fire: Fire rows due at or before the given instant, a bounded number, in the given
            transaction; how many. It is called again until it answers 0.
        alone: How a row that is due alone is fired, where that is quicker than a transaction;
            what it leaves undone is left to `fire`.
        is_patient: No commit makes a row due at once, or a second later is soon enough: its loop
            looks each second and not after commits. In sandbox mode it does, for the leaps.
        rests: After firing fewer than `MANY` it sleeps so many times as long as that took: what
            nobody waits for is done bit by bit, and stands in nobody's way. Of a patient one; any
            other is woken by the next commit.
        by_keys: It fires in sessions that plan as after `BY_KEYS`, and each statement only once.
            Elsewhere PostgreSQL plans a statement anew the first five times in each session, by
            statistics that may be of an empty table.
    """

    name: str
    next_due: str
    fire: Fire
    alone: Alone | None = None
    is_patient: bool = False
    rests: float = 0.0
    by_keys: bool = False

    async def look(self, connection: Connection) -> Ahead:
        """What is due next."""
        if self.alone is not None:
            return await self.alone.look(connection)
        return Ahead(await connection.fetchval(self.next_due))


def due_column(table: str, column: str = "due_at") -> str:
    """`next_due` of a table whose partial index covers the rows where the column is not null."""
    return f"SELECT min({column}) FROM {table} WHERE {column} IS NOT NULL"


async def look_at_all(
    connection: Connection, timers: Sequence[Timer], clock: Clock
) -> tuple[list[datetime | None], datetime]:
    """When each timer's first row is due, and the time, in one statement."""
    row = await connection.fetchrow(
        f"SELECT {clock.expression}, {', '.join(f'({timer.next_due})' for timer in timers)}"
        if timers
        else f"SELECT {clock.expression}"
    )
    assert row is not None  # noqa: S101  # a SELECT without FROM always has one
    now, *due = row
    return due, clock.told(now)


class Lookout:
    """Looks what is due next, once for all timers of a process that want to know at the same time.

    The loops of a worker are woken by the same commits. Where no patient one has come along its
    table is not looked at: that of the planned touches may be long.
    """

    def __init__(self, timers: Sequence[Timer], database: Database, clock: Clock) -> None:
        self._timers = list(timers)
        self._impatient = [timer for timer in timers if not timer.is_patient]
        self._database = database
        self._clock = clock
        self._gathering: asyncio.Future[Mapping[str, Ahead]] | None = None
        self._is_for_all = False

    async def look(self, timer: Timer) -> Ahead:
        """What is due next of a timer that this lookout was made for.

        Raises:
            TransientError: Whoever looked for all of us could not.
        """
        self._is_for_all |= timer.is_patient
        if self._gathering is not None:
            return (await asyncio.shield(self._gathering))[timer.name]
        gathering = self._gathering = asyncio.get_running_loop().create_future()
        try:
            try:
                await asyncio.sleep(0)  # who was woken by the same bell comes along
            finally:
                self._gathering = None  # who comes later has to see later commits, too
                timers = self._timers if self._is_for_all else self._impatient
                self._is_for_all = False
            found = await self._look_at(timers)
        except BaseException as error:
            gathering.set_exception(TransientError(f"nobody could look: {error!r}"))
            gathering.exception()  # perhaps nobody else wants to know
            raise
        gathering.set_result(found)
        return found[timer.name]

    async def _look_at(self, timers: Sequence[Timer]) -> dict[str, Ahead]:
        async with self._database.pool.acquire() as connection:
            due, now = await look_at_all(connection, timers, self._clock)
        return {timer.name: Ahead(due_at, now) for timer, due_at in zip(timers, due, strict=True)}


async def fire_once(timer: Timer, connection: Connection, now: datetime) -> int:
    """Fire some due rows and commit; how many. 0: none is due, or others hold them."""
    fired, _ = await fire_next(timer, connection, now, await timer.look(connection))
    return fired


async def fire_next(
    timer: Timer, connection: Connection, now: datetime, ahead: Ahead
) -> tuple[int, Ahead | None]:
    """`fire_once` after a look; also what is ahead now, where it came along."""
    if timer.alone is not None and (after := await timer.alone.fire(connection, now, ahead)):
        return 1, after
    async with connection.transaction():
        fired = await timer.fire(connection, now)
        failpoints.reach("timer.fired")
    return fired, None


@dataclass(slots=True)
class _Pause:
    """How long a loop that was rung waits before it looks: the longer, the more it was in vain."""

    near: float = LOOK_AGAIN_SECONDS
    afar: float = LOOK_AGAIN_SECONDS
    is_rung: bool = False

    def after(self, fired: int) -> None:
        if not self.is_rung or fired:
            self.near = self.afar = LOOK_AGAIN_SECONDS
        else:
            self.near = min(self.near * 2, LOOK_SELDOM_SECONDS)
            self.afar = min(self.afar * 2, LEAVE_TO_OTHERS_SECONDS)


class TimerLoop:
    """Fires one kind of due row for ever.

    Args:
        lookout: Shared with the process's other loops; by default one of its own.

    Attributes:
        attempts: How often it has looked or known without a look, whether or not there was anything
            to fire.
    """

    def __init__(
        self,
        timer: Timer,
        database: Database,
        clock: Clock,
        bell: Bell,
        lookout: Lookout | None = None,
    ) -> None:
        self.timer = timer
        self.attempts = 0
        self._database = database
        self._sessions = database.by_keys if timer.by_keys else database.pool
        self._clock = clock
        self._bell = bell
        self._lookout = lookout or Lookout([timer], database, clock)
        self._fired = FIRED.labels(timer.name)
        self._lateness = LATENESS.labels(timer.name)

    async def run(self) -> None:
        """Fire what is due, sleep until the next; a lost database is waited for."""
        pause = _Pause()
        while True:
            try:
                until_due, fired = await self._fire_and_look_ahead()
                if self.timer.is_patient and not self._clock.sandbox:
                    await asyncio.sleep(until_due)
                    continue
                pause.after(fired)
                # What is known to be due soon is not kept waiting by any commit.
                due_at = time.monotonic() + until_due
                pause.is_rung = await self._bell.wait(until_due)
                if pause.is_rung and not self._bell.was_near:
                    await self._bell.wait(min(due_at - time.monotonic(), pause.afar), near=True)
                if pause.is_rung:
                    # One look for many commits.
                    await asyncio.sleep(min(due_at - time.monotonic(), _until_tick(pause.near)))
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("timer_put_off", timer=self.timer.name, error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)

    async def _fire_and_look_ahead(self) -> tuple[float, int]:
        """Seconds to sleep, and how many rows were fired before."""
        total = 0
        found: Ahead | None = None
        if self.timer.alone is None:
            self.attempts += 1
            found = await self._lookout.look(self.timer)
            if until_due := self._until_due(found):
                return until_due, total
        while True:
            until_due, fired = await self._fire_in_turn(found, enough=MANY)
            total += fired
            if until_due:
                return until_due, total
            total += await self._fire_side_by_side()
            found = None

    async def _fire_side_by_side(self) -> int:
        """Work off a backlog: while one lane's SQL runs, the other makes its events."""
        lanes = [self._fire_in_turn() for _ in range(LANES)]
        done = await asyncio.gather(*lanes, return_exceptions=True)
        for each in done:
            if isinstance(each, BaseException):
                raise each
        return sum(each[1] for each in done if not isinstance(each, BaseException))

    async def _fire_in_turn(
        self, ahead: Ahead | None = None, *, enough: float = inf
    ) -> tuple[float, int]:
        """Fire until nothing is due, or until so many were fired at once.

        Returns:
            Seconds to sleep, 0 where more may be due; and how many rows were fired.
        """
        total = 0
        async with self._sessions.acquire() as connection:
            while True:
                began = time.monotonic()
                until_due, fired, ahead = await self._fire_next(connection, ahead)
                total += fired
                if until_due or fired >= enough:
                    return until_due, total
                if self.timer.rests and fired < MANY:
                    return self.timer.rests * (time.monotonic() - began), total
                if total % KNOWN_AHEAD == 0:
                    ahead = None

    async def _fire_next(
        self, connection: Connection, ahead: Ahead | None
    ) -> tuple[float, int, Ahead | None]:
        """As `_fire_in_turn`; what is known spares the look."""
        self.attempts += 1
        found = ahead or await self._look(connection)
        if until_due := self._until_due(found):
            return until_due, 0, None
        now = found.now or self._clock.now()
        failpoints.reach("timer.due")
        fired, after = await fire_next(self.timer, connection, now, found)
        failpoints.reach("timer.committed")
        if not fired:  # others hold the due rows; they will be done in a moment
            return HELD_BY_OTHERS_SECONDS, 0, None
        due = found.due_at
        if due != AT_ONCE and due is not None:
            self._lateness.observe(max(0.0, (now - due).total_seconds()))
        self._fired.inc(fired)
        self._database.wake.ring(but=self._bell)  # this loop looks again anyway
        return 0.0, fired, after

    async def _look(self, connection: Connection) -> Ahead:
        """What is due next, and the time by the database, which may decide whether it is."""
        alone = self.timer.alone
        if alone is None:
            (due_at,), now = await look_at_all(connection, [self.timer], self._clock)
            return Ahead(due_at, now)
        found = await alone.look(connection)
        if found.due_at is None:
            return found
        if found.now is not None and not self._clock.sandbox:
            return found._replace(now=self._clock.told(found.now))
        return found._replace(now=await self._clock.read(connection))

    def _until_due(self, found: Ahead) -> float:
        """Seconds to sleep; 0: it is due."""
        longest = _until_tick(LONGEST_SLEEP_SECONDS)
        if found.due_at is None:
            return longest
        now = found.now or self._clock.now()
        if found.due_at <= now:
            return 0.0
        return min((found.due_at - now).total_seconds(), longest)


def _until_tick(every: float) -> float:
    """Seconds until a process's clock shows a multiple of these: who waits so wakes together.

    Who was woken a moment early has had this tick.
    """
    left = every - time.monotonic() % every
    return left if left > every / 10 else left + every
