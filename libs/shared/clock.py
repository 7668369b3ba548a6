"""One clock per service: its database's time, plus the sandbox offset.

The doors (HTTP, Kafka, timers) take `now` here and pass it down; nothing below them reads a
clock. The database's time is followed with the local monotonic clock, so reading it costs no
round trip, and an app server with a wrong clock does no harm. In sandbox mode the offset can be
advanced by API, which lets "15 minutes, 24 hours, 6 months" pass in a second; outside sandbox
mode the stored offset is never even read.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import structlog

from libs.shared.background import beside
from libs.shared.database import Connection
from libs.shared.outages import UNREACHABLE
from libs.shared.wake import Bell, Wake

FOLLOW_SECONDS = 1.0

log = structlog.get_logger()


class Clock:
    """The service's clock. Safe to share by every task of a process.

    Attributes:
        expression: SQL of the instant by the database itself.
    """

    def __init__(self, *, sandbox: bool, first_offset: timedelta = timedelta(0)) -> None:
        self.sandbox = sandbox
        self._first_offset = first_offset
        self.expression = "clock_timestamp()"
        if sandbox:
            self.expression += (
                " + coalesce((SELECT advance FROM sandbox_clock),"
                f" make_interval(secs => {first_offset.total_seconds()!r}))"
            )
        self._base = datetime.now(UTC)  # replaced by the database's time before anything runs
        self._base_monotonic = time.monotonic()

    def now(self) -> datetime:
        """The instant, aware UTC, within a few milliseconds of the database's time."""
        return self._base + timedelta(seconds=time.monotonic() - self._base_monotonic)

    async def read(self, connection: Connection) -> datetime:
        """The instant by the database itself; what timers compare their due rows with."""
        return self.told(await connection.fetchval(f"SELECT {self.expression}"))

    def told(self, now: datetime) -> datetime:
        """As `read`, where a statement has just brought the value of `expression` along."""
        self._base, self._base_monotonic = now, time.monotonic()
        return now

    async def advance(self, connection: Connection, by: timedelta) -> datetime:
        """Move the suite's clock forward; only in sandbox mode.

        Raises:
            RuntimeError: Not in sandbox mode. The API is not even mounted then.
            ValueError: `by` is negative: time does not go back.
        """
        if not self.sandbox:
            raise RuntimeError("the clock can be advanced in sandbox mode only")
        if by < timedelta(0):
            raise ValueError("the clock only goes forward")
        await self._remember_first_offset(connection)
        await connection.execute("UPDATE sandbox_clock SET advance = advance + $1", by)
        return await self.read(connection)

    async def _remember_first_offset(self, connection: Connection) -> None:
        await connection.execute(
            "INSERT INTO sandbox_clock (advance) VALUES ($1) ON CONFLICT DO NOTHING",
            self._first_offset,
        )

    @asynccontextmanager
    async def running(self, pool: asyncpg.Pool, wake: Wake) -> AsyncIterator["Clock"]:
        """Follow the database's time while the block runs; advances are seen at once."""
        async with pool.acquire() as connection:
            if self.sandbox:
                await self._remember_first_offset(connection)
            await self.read(connection)
        async with beside(self._follow(pool, wake.bell()), name="clock"):
            yield self

    async def _follow(self, pool: asyncpg.Pool, bell: Bell) -> None:
        while True:
            # Only sandbox mode needs the bell: there a ring may mean that the clock was advanced.
            await (bell.wait(FOLLOW_SECONDS) if self.sandbox else asyncio.sleep(FOLLOW_SECONDS))
            try:
                async with pool.acquire(timeout=5) as connection:
                    await self.read(connection)
            except UNREACHABLE:
                log.warning("clock_follows_monotonic_time")  # database away: keep going on
            await asyncio.sleep(0.05)
