"""A due row fires at its time, once, whoever is awake."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import asyncpg
import pytest

from libs.shared.clock import Clock
from libs.shared.database import Connection, Database, TransientError
from libs.shared.timers import (
    KNOWN_AHEAD,
    LEAVE_TO_OTHERS_SECONDS,
    LONGEST_SLEEP_SECONDS,
    Ahead,
    Alone,
    Lookout,
    Timer,
    TimerLoop,
    due_column,
)

TABLE = """
    CREATE TABLE alarms (id int PRIMARY KEY, due_at timestamptz, fired_at timestamptz,
                         times int NOT NULL DEFAULT 0);
    CREATE INDEX ON alarms (due_at) WHERE due_at IS NOT NULL
"""


async def fire_alarms(tx: Connection, now: datetime) -> int:
    rows = await tx.fetch(
        "UPDATE alarms SET due_at = NULL, fired_at = $1, times = times + 1 WHERE id IN ("
        " SELECT id FROM alarms WHERE due_at <= $1 ORDER BY due_at LIMIT 10"
        " FOR UPDATE SKIP LOCKED) RETURNING id",
        now,
    )
    return len(rows)


@pytest.fixture
async def database(plumbing: Database) -> Database:
    await plumbing.pool.execute(TABLE)
    return plumbing


ALARMS = Timer("alarms", due_column("alarms"), fire_alarms)


class Counted(Lookout):
    """Knows when it has looked."""

    def __init__(self, timers: Sequence[Timer], database: Database, clock: Clock) -> None:
        super().__init__(timers, database, clock)
        self.looks: list[float] = []

    async def _look_at(self, timers: Sequence[Timer]) -> dict[str, Ahead]:
        self.looks.append(time.monotonic())
        return await super()._look_at(timers)


@asynccontextmanager
async def ticking(
    database: Database, clock: Clock, *timers: Timer, workers: int = 1
) -> AsyncIterator[Counted]:
    timers = timers or (ALARMS,)
    lookout = Counted(timers, database, clock)
    async with clock.running(database.pool, database.wake):
        tasks = [
            asyncio.create_task(
                TimerLoop(timer, database, clock, database.wake.bell(), lookout).run()
            )
            for timer in timers
            for _ in range(workers)
        ]
        try:
            yield lookout
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


async def fired(database: Database, count: int) -> list[asyncpg.Record]:
    async with asyncio.timeout(15):
        while True:
            rows = await database.pool.fetch("SELECT * FROM alarms WHERE times > 0 ORDER BY id")
            if len(rows) >= count:
                return rows
            await asyncio.sleep(0.005)


async def test_rows_fire_when_due_and_not_before(database: Database) -> None:
    start = await database.pool.fetchval("SELECT now()")
    await database.pool.executemany(
        "INSERT INTO alarms VALUES ($1, $2)",
        [(n, start + timedelta(milliseconds=60 * n)) for n in range(1, 9)],
    )

    async with ticking(database, Clock(sandbox=False)):
        rows = await fired(database, 8)

    for row in rows:
        late = row["fired_at"] - (start + timedelta(milliseconds=60 * row["id"]))
        assert timedelta(0) <= late < timedelta(seconds=2)


async def test_while_nothing_is_due_nothing_is_tried(database: Database) -> None:
    await database.pool.execute("INSERT INTO alarms VALUES (1, now() + interval '1 hour')")
    tried: list[datetime] = []

    async def note(tx: Connection, now: datetime) -> int:
        tried.append(now)
        return 0

    timer = replace(ALARMS, fire=note)
    async with ticking(database, Clock(sandbox=False), timer) as lookout:
        async with asyncio.timeout(10):
            while len(lookout.looks) < 5:  # each commit makes the loop look, no more
                database.wake.ring()
                await asyncio.sleep(0.01)

    assert tried == []


async def test_commits_of_other_processes_are_left_to_them_more_and_more(
    database: Database,
) -> None:
    await database.pool.execute("INSERT INTO alarms VALUES (1, now() + interval '1 hour')")
    async with ticking(database, Clock(sandbox=False)) as lookout:
        began = time.monotonic()
        for _ in range(300):
            database.wake.ring_here(near=False)
            await asyncio.sleep(0.01)
        # After 5, 10, 20 ... 500 milliseconds, then each half second.
        most = 9 + (time.monotonic() - began) / LEAVE_TO_OTHERS_SECONDS
        assert 3 <= len(lookout.looks) <= most
        database.wake.ring_here(near=False)
        before = len(lookout.looks)
        async with asyncio.timeout(LEAVE_TO_OTHERS_SECONDS / 2):  # what we commit is looked at
            while len(lookout.looks) == before:
                database.wake.ring()
                await asyncio.sleep(0.01)


LATE = 0  # an alarm


@dataclass
class OneByOne:
    """Alarms that are fired one by one, each with a look at the next.

    Attributes:
        looks_from_here_on: What comes along was due later than what was fired.
        comes_late_at: When this one is fired another is made due, at the earliest instant of all.
    """

    looks: int = 0
    looks_from_here_on: bool = False
    comes_late_at: int | None = None
    undone: set[int] = field(default_factory=set)
    tried: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)

    def timer(self) -> Timer:
        return Timer(
            "alarms", due_column("alarms"), self._fire_all, alone=Alone(self._look, self._fire)
        )

    async def _look(self, connection: Connection, since: datetime | None = None) -> Ahead:
        self.looks += 1
        row = await connection.fetchrow(
            "SELECT id, due_at, clock_timestamp() AS now FROM alarms"
            " WHERE due_at >= coalesce($1, '-infinity'::timestamptz) ORDER BY due_at LIMIT 1",
            since,
        )
        return Ahead(row["due_at"], row["now"], [row]) if row else Ahead(None)

    async def _fire(self, connection: Connection, now: datetime, ahead: Ahead) -> Ahead | None:
        (row,) = ahead.rows
        self.tried.append(row["id"])
        if row["id"] in self.undone:
            return None
        await connection.execute(
            "UPDATE alarms SET due_at = NULL, fired_at = $1, times = times + 1 WHERE id = $2",
            *(now, row["id"]),
        )
        if row["id"] == self.comes_late_at:
            await connection.execute(
                "INSERT INTO alarms VALUES ($1, now() - '1 day'::interval)", LATE
            )
        after = await self._look(connection, row["due_at"] if self.looks_from_here_on else None)
        self.looks -= 1
        return Ahead(after.due_at, rows=after.rows)

    async def _fire_all(self, tx: Connection, now: datetime) -> int:
        self.left.append(len(self.tried))
        return await fire_alarms(tx, now)


@pytest.mark.parametrize("sandbox", [False, True])
async def test_what_comes_along_with_a_firing_is_fired_without_a_look(
    database: Database, sandbox: bool
) -> None:
    await database.pool.execute(
        "INSERT INTO alarms SELECT n, now() - interval '1 hour' + n * interval '1 second'"
        " FROM generate_series(1, 30) n"
    )
    alarms = OneByOne()

    async with ticking(database, Clock(sandbox=sandbox), alarms.timer()):
        rows = await fired(database, 30)

    assert {row["times"] for row in rows} == {1}
    assert (alarms.tried, alarms.left) == (list(range(1, 31)), [])
    assert alarms.looks <= 2  # at the start, perhaps for the ring of having connected


async def test_what_was_made_due_late_at_an_earlier_instant_is_not_overlooked_for_long(
    database: Database,
) -> None:
    rows = 4 * KNOWN_AHEAD
    await database.pool.execute(
        "INSERT INTO alarms SELECT n, now() - interval '1 hour' + n * interval '1 second'"
        f" FROM generate_series(1, {rows}) n"
    )
    alarms = OneByOne(looks_from_here_on=True, comes_late_at=rows // 2)

    async with ticking(database, Clock(sandbox=False), alarms.timer()):
        await fired(database, rows + 1)

    assert alarms.tried.index(LATE) - rows // 2 <= KNOWN_AHEAD
    assert alarms.looks <= 2 + rows / KNOWN_AHEAD


async def test_a_loop_is_not_woken_by_what_it_has_committed_itself(database: Database) -> None:
    before: list[int] = []

    async def fire(tx: Connection, now: datetime) -> int:
        before.append(len(lookout.looks))
        return await fire_alarms(tx, now)

    async with ticking(database, Clock(sandbox=False), replace(ALARMS, fire=fire)) as lookout:
        await asyncio.sleep(0.2)  # the ring of having connected is over
        await database.pool.execute("INSERT INTO alarms VALUES (1, now())")  # rings nobody
        await fired(database, 1)  # by the look of a whole second
        await asyncio.sleep(LONGEST_SLEEP_SECONDS / 2)

    assert len(lookout.looks) == before[0]


async def test_loops_that_are_woken_together_look_together(database: Database) -> None:
    await database.pool.execute("INSERT INTO alarms VALUES (1, now() + interval '1 hour')")
    timers = [replace(ALARMS, name=f"alarms_{n}") for n in range(8)]

    async with ticking(database, Clock(sandbox=False), *timers) as lookout:
        await asyncio.sleep(0.2)  # the ring of having connected is over
        before = len(lookout.looks)
        for _ in range(10):
            database.wake.ring()
            await asyncio.sleep(0.1)

    assert 10 <= len(lookout.looks) - before <= 20  # 80 if each looked by itself


async def test_a_patient_timer_looks_each_second_and_fires_at_its_time(database: Database) -> None:
    start = await database.pool.fetchval("SELECT now()")
    patient = replace(ALARMS, is_patient=True)
    async with ticking(database, Clock(sandbox=False), patient) as lookout:
        for n in range(1, 11):
            await database.pool.execute(
                "INSERT INTO alarms VALUES ($1, $2)", n, start + timedelta(seconds=1.5 + n / 10)
            )
            database.wake.ring()
            await asyncio.sleep(0.1)
        rows = await fired(database, 10)

    for row in rows:
        late = row["fired_at"] - (start + timedelta(seconds=1.5 + row["id"] / 10))
        assert timedelta(0) <= late < timedelta(seconds=0.5)
    # One each second, and one before each row; ten rings woke nobody.
    assert len(lookout.looks) <= 3 + 10 + 2


async def test_the_table_of_a_patient_timer_is_left_alone_when_others_look(
    database: Database,
) -> None:
    patient = replace(ALARMS, name="patient", next_due="SELECT 1 / 0", is_patient=True)
    lookout = Lookout([ALARMS, patient], database, Clock(sandbox=False))

    assert (await lookout.look(ALARMS)).due_at is None
    with pytest.raises(asyncpg.DivisionByZeroError):
        await lookout.look(patient)
    assert (await lookout.look(ALARMS)).due_at is None


async def test_who_comes_while_somebody_looks_sees_what_was_committed_since(
    database: Database,
) -> None:
    slow = replace(
        ALARMS, next_due="SELECT min(due_at) FROM alarms CROSS JOIN (SELECT pg_sleep(0.5)) AS s"
    )
    lookout = Lookout([slow], database, Clock(sandbox=False))

    first = asyncio.create_task(lookout.look(slow))
    await asyncio.sleep(0.2)
    await database.pool.execute("INSERT INTO alarms VALUES (1, now())")
    second = asyncio.create_task(lookout.look(slow))

    assert (await first).due_at is None
    assert (await second).due_at is not None


async def test_a_look_that_fails_is_told_to_all_and_tried_again(database: Database) -> None:
    await database.pool.execute("INSERT INTO alarms VALUES (1, now())")
    timers = [replace(ALARMS, name=f"alarms_{n}") for n in range(3)]
    lookout = Lookout(timers, database, Clock(sandbox=False))
    await database.pool.execute("ALTER TABLE alarms RENAME TO away")

    found = await asyncio.gather(*map(lookout.look, timers), return_exceptions=True)
    await database.pool.execute("ALTER TABLE away RENAME TO alarms")
    again = await asyncio.gather(*map(lookout.look, timers))

    assert [type(each) for each in found] == [
        asyncpg.UndefinedTableError,
        TransientError,
        TransientError,
    ]
    assert all(each.due_at and each.now and each.due_at <= each.now for each in again)


async def test_who_looks_for_all_and_is_cancelled_leaves_nobody_waiting(database: Database) -> None:
    lookout = Lookout([ALARMS], database, Clock(sandbox=False))
    leader = asyncio.create_task(lookout.look(ALARMS))
    follower = asyncio.create_task(lookout.look(ALARMS))
    await asyncio.sleep(0)  # both have begun
    leader.cancel()

    async with asyncio.timeout(5):
        with pytest.raises(TransientError):
            await follower
        assert (await lookout.look(ALARMS)).due_at is None


async def test_what_cannot_be_fired_alone_is_fired_with_the_others(database: Database) -> None:
    await database.pool.execute(
        "INSERT INTO alarms SELECT n, now() - interval '1 hour' + n * interval '1 second'"
        " FROM generate_series(1, 5) n"
    )
    alarms = OneByOne(undone={3})

    async with ticking(database, Clock(sandbox=False), alarms.timer()):
        rows = await fired(database, 5)

    assert {row["times"] for row in rows} == {1}
    assert (alarms.tried, alarms.left) == ([1, 2, 3], [3])


async def test_what_came_along_and_is_due_later_is_looked_at_again(database: Database) -> None:
    await database.pool.execute(
        "INSERT INTO alarms VALUES (1, now() - interval '1 hour'), (2, now() + interval '0.3 s')"
    )
    alarms = OneByOne()

    async with ticking(database, Clock(sandbox=False), alarms.timer()):
        rows = await fired(database, 2)

    assert [row["times"] for row in rows] == [1, 1]
    assert rows[1]["fired_at"] >= rows[0]["fired_at"] + timedelta(seconds=0.2)
    assert alarms.looks >= 2


async def test_many_workers_fire_each_row_once(database: Database) -> None:
    await database.pool.execute(
        "INSERT INTO alarms SELECT n, now() - interval '1 day' FROM generate_series(1, 500) n"
    )

    async with ticking(database, Clock(sandbox=False), workers=4):
        rows = await fired(database, 500)

    assert {row["times"] for row in rows} == {1}


async def test_a_crash_in_the_middle_leaves_the_rows_due(database: Database) -> None:
    await database.pool.execute(
        "INSERT INTO alarms SELECT n, now() - interval '1 day' FROM generate_series(1, 5) n"
    )
    crashes = {"left": 2}

    async def dies_after_its_effect(tx: Connection, now: datetime) -> int:
        count = await fire_alarms(tx, now)
        if crashes["left"]:
            crashes["left"] -= 1
            raise asyncpg.ConnectionDoesNotExistError("connection was closed")
        return count

    timer = Timer("alarms", due_column("alarms"), dies_after_its_effect)
    async with ticking(database, Clock(sandbox=False), timer):
        rows = await fired(database, 5)

    assert crashes["left"] == 0
    assert {row["times"] for row in rows} == {1}


async def test_in_sandbox_mode_advancing_the_clock_makes_rows_due(database: Database) -> None:
    clock = Clock(sandbox=True)
    async with ticking(database, clock):
        before = clock.now()
        await database.pool.execute(
            "INSERT INTO alarms VALUES (1, $1)", before + timedelta(hours=24)
        )
        async with database.transaction() as tx:
            await clock.advance(tx, timedelta(hours=25))

        (row,) = await fired(database, 1)

    assert row["fired_at"] >= before + timedelta(hours=25)


async def test_outside_sandbox_mode_the_clock_cannot_be_moved(database: Database) -> None:
    await database.pool.execute("INSERT INTO sandbox_clock (advance) VALUES ('10 years')")
    clock = Clock(sandbox=False)

    async with clock.running(database.pool, database.wake), database.transaction() as tx:
        with pytest.raises(RuntimeError):
            await clock.advance(tx, timedelta(hours=1))
        assert abs(await clock.read(tx) - await tx.fetchval("SELECT now()")) < timedelta(seconds=5)


async def test_time_does_not_go_back(database: Database) -> None:
    clock = Clock(sandbox=True)
    async with clock.running(database.pool, database.wake), database.transaction() as tx:
        with pytest.raises(ValueError, match="forward"):
            await clock.advance(tx, timedelta(seconds=-1))
