"""One lead to one manager, rules and record included, beside one bare statement.

Ours is the offering timer's own loop, as workers run it, from one lead to the next: match nine
rules for fifty managers, choose, write lead, offer, load, turn, event and the record of why, look
what is due next, and ring the bells. Its clock stands still until a lead is offered and then goes
on to the instant at which the next is due, so that each is due alone.
The floor picks the least loaded of fifty managers and writes owner, timer and event, in a statement
that commits by itself; it is told which lead. Source: performance.md, section 6, "Lead routing
floor". Both on one connection; `assign_burst` is a thousand leads that came at once, against a
number a second.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import asyncpg

from libs.shared.clock import Clock
from libs.shared.database import SERVER_SETTINGS, Connection, Database
from libs.shared.timers import Ahead, Alone, TimerLoop, fire_next
from services.routing.offering import OFFERING, look_ahead, offer_alone
from tests.benchmarks.figures import Figure, p99
from tests.benchmarks.routed_leads import MANAGERS, routing_database, waiting
from tests.benchmarks.servers import Servers, new_database

LEADS = 1_000  # in a round
ROUNDS = 4
BURST = 1_000
BURST_A_SECOND = 5_000
STEP = timedelta(milliseconds=1)

_FLOOR_TABLES = f"""
CREATE TABLE managers (manager_id uuid PRIMARY KEY DEFAULT uuidv7(), load int NOT NULL DEFAULT 0)
    WITH (fillfactor = 50);
INSERT INTO managers SELECT FROM generate_series(1, {MANAGERS});
CREATE TABLE leads (lead_id uuid PRIMARY KEY, manager_id uuid, state text NOT NULL,
    due_at timestamptz) WITH (fillfactor = 80);
CREATE INDEX ON leads (due_at) WHERE state = 'offered';
CREATE TABLE timers (lead_id uuid PRIMARY KEY, due_at timestamptz NOT NULL);
CREATE INDEX ON timers (due_at);
CREATE TABLE said (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text NOT NULL,
    key text NOT NULL, data text NOT NULL);
"""
_FLOOR = """
    WITH owner AS (
        UPDATE managers SET load = load + 1 WHERE manager_id = (SELECT manager_id FROM managers
            ORDER BY load, manager_id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING manager_id
    ), lead AS (
        UPDATE leads SET state = 'offered', manager_id = owner.manager_id, due_at = $2
        FROM owner WHERE lead_id = $1 AND state = 'waiting' RETURNING lead_id, leads.manager_id
    ), timer AS (
        INSERT INTO timers SELECT lead_id, $2 FROM lead
    )
    INSERT INTO said (topic, key, data)
    SELECT 'leads', lead_id::text, row_to_json(lead)::text FROM lead
"""


async def measure(servers: Servers) -> list[Figure]:
    floor = await _floor(servers)
    url = await routing_database(servers, "bench_assign")
    rates: list[tuple[float, float]] = []
    slowest: list[tuple[float, float]] = []
    bursts: list[tuple[float, float]] = []
    async with Database.open(url, name="bench", pool_size=1) as database:
        for _ in range(ROUNDS + 1):
            limit, limit_p99 = _told(await _floor_times(floor))
            ours, ours_p99 = _told(await _times(database))
            rates.append((limit, ours))
            slowest.append((limit_p99, ours_p99))
            bursts.append((BURST_A_SECOND, await _burst(database)))
    await floor.close()
    return [  # the first round warms up
        Figure.of("assign", "leads/s", rates[1:], bar=0.6, aim=0.8),
        Figure.of("assign_p99", "ms p99", slowest[1:], bar=3.0, aim=1.5, low_is_good=True),
        Figure.of("assign_burst", "leads/s", bursts[1:], bar=1.0),
    ]


async def _floor(servers: Servers) -> asyncpg.Connection:
    url = await new_database(servers.postgres, "bench_assign_floor")
    connection = await asyncpg.connect(url, server_settings=SERVER_SETTINGS)
    await connection.execute(_FLOOR_TABLES)
    return connection


async def _floor_times(floor: asyncpg.Connection) -> list[float]:
    rows = await floor.fetch(
        "INSERT INTO leads SELECT uuidv7(), NULL, 'waiting' FROM generate_series(1, $1::int)"
        " RETURNING lead_id",
        LEADS,
    )
    took = []
    for row in rows:
        began = time.perf_counter()
        until = datetime.now(UTC) + timedelta(minutes=15)
        answer = await floor.execute(_FLOOR, row["lead_id"], until)
        took.append(time.perf_counter() - began)
        if answer != "INSERT 0 1":
            raise RuntimeError(answer)
    return took


class _FromLeadToLead(Clock):
    """The loop's clock and timer: the clock goes on when a lead has been offered.

    Attributes:
        offered: When each lead had been, by `perf_counter`.
        done: Set with the last of them.
    """

    def __init__(self, first: datetime) -> None:
        super().__init__(sandbox=False)
        self.at = first
        self.offered: list[float] = []
        self.done = asyncio.Event()
        self.timer = replace(OFFERING, alone=Alone(look_ahead, self._offer))

    def now(self) -> datetime:
        return self.at

    def told(self, now: datetime) -> datetime:
        return self.at

    async def _offer(self, connection: Connection, now: datetime, ahead: Ahead) -> Ahead | None:
        after = await offer_alone(connection, now, ahead)
        if after is None:
            raise RuntimeError("the lead was not alone")
        self.at += STEP
        self.offered.append(time.perf_counter())
        if len(self.offered) == LEADS:
            self.done.set()
        return after


async def _times(database: Database) -> list[float]:
    since = datetime.now(UTC)
    async with database.pool.acquire() as connection:
        first, *_ = await waiting(connection, LEADS, since, STEP)
    clock = _FromLeadToLead(first)
    with database.wake.listening() as bell:
        began = time.perf_counter()
        loop = asyncio.create_task(TimerLoop(clock.timer, database, clock, bell).run())
        done = asyncio.create_task(clock.done.wait())
        await asyncio.wait((loop, done), return_when=asyncio.FIRST_COMPLETED)
        done.cancel()
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop
    ends = [began, *clock.offered]
    return [end - begin for begin, end in pairwise(ends)]


async def _burst(database: Database) -> float:
    since = datetime.now(UTC)
    async with database.pool.acquire() as connection:
        await waiting(connection, BURST, since, timedelta(0))
    began = time.perf_counter()
    done = 0
    async with database.pool.acquire() as connection:
        ahead: Ahead | None = None
        while done < BURST:
            ahead = ahead or await OFFERING.look(connection)
            fired, ahead = await fire_next(OFFERING, connection, since, ahead)
            done += fired
            database.wake.ring()
    return BURST / (time.perf_counter() - began)


def _told(took: list[float]) -> tuple[float, float]:
    """Leads a second and the 99th percentile in milliseconds."""
    return len(took) / sum(took), p99(took) * 1000
