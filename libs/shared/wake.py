"""Waking the background loops the moment something was committed.

The relay and the timers sleep until there is work. A commit rings in-process bells at once and,
through a connection of its own, a debounced NOTIFY for the other processes of the same service.
NOTIFY inside the business transaction would take a database-wide lock at commit (it halved the
throughput when measured); a lost NOTIFY only costs one slow poll, which every loop keeps.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import asyncpg
import structlog

from libs.shared.background import beside
from libs.shared.outages import UNREACHABLE

CHANNEL = "baza_wake"
DEBOUNCE_SECONDS = 0.005  # at most one NOTIFY in this time from one process
RECONNECT_SECONDS = 1.0

log = structlog.get_logger()


class Bell:
    """One loop's own alarm. Ringing while the loop works is remembered.

    Attributes:
        was_near: Whether the commit for which it rang last was one of this process.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._near = asyncio.Event()
        self._is_rung = False
        self.was_near = False

    def stir(self) -> None:
        """End the sleep, which is no ring."""
        self._event.set()

    def ring(self, *, near: bool = True) -> None:
        self._is_rung = True
        self._event.set()
        if near:
            self._near.set()

    async def wait(self, timeout: float, *, near: bool = False) -> bool:
        """Sleep until rung or until `timeout` seconds have passed; True when rung.

        Args:
            near: Only commits of this process end the sleep.
        """
        try:
            async with asyncio.timeout(timeout):
                await (self._near if near else self._event).wait()
        except TimeoutError:
            return False
        self.was_near = self._near.is_set()
        self._event.clear()
        self._near.clear()
        was_rung, self._is_rung = self._is_rung, False
        return was_rung


class Wake:
    """All bells of this process, tied to those of the service's other processes."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._bells: list[Bell] = []
        self._outgoing = Bell()
        self._me = f"{os.getpid()}-{id(self)}"

    def bell(self) -> Bell:
        """A new bell; it rings for every commit of any process of this service."""
        bell = Bell()
        self._bells.append(bell)
        return bell

    @contextmanager
    def listening(self) -> Iterator[Bell]:
        """A bell for as long as the block runs."""
        bell = self.bell()
        try:
            yield bell
        finally:
            self._bells.remove(bell)

    def ring(self, *, but: Bell | None = None) -> None:
        """Say that something was committed. Cheap; never blocks, never fails.

        Args:
            but: The bell of whoever has committed, if they look for more to do anyway.
        """
        self.ring_here(but=but)
        self._outgoing.ring()

    def ring_here(self, *, near: bool = True, but: Bell | None = None) -> None:
        """The same for this process alone; others find out when they next look by themselves."""
        for bell in self._bells:
            if bell is not but:
                bell.ring(near=near)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Wake"]:
        """Keep the connection for NOTIFY and LISTEN while the block runs."""
        async with beside(self._stay_connected(), name="wake"):
            yield self

    async def _stay_connected(self) -> None:
        while True:
            try:
                # A NOTIFY commits like a write. Waiting for the disk, it would hold up the commits
                # of the business, which wait for the same disk.
                connection = await asyncpg.connect(
                    self._dsn, timeout=10, server_settings={"synchronous_commit": "off"}
                )
            except (OSError, asyncpg.PostgresError, TimeoutError):
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            try:
                await self._notify_for_ever(connection)
            except UNREACHABLE:
                log.warning("wake_connection_lost")
                await asyncio.sleep(RECONNECT_SECONDS)
            finally:
                with suppress(*UNREACHABLE):
                    await connection.close(timeout=1)

    async def _notify_for_ever(self, connection: asyncpg.Connection) -> None:
        await connection.add_listener(CHANNEL, self._heard)
        self.ring_here()  # whatever was missed while there was no connection
        while True:
            if await self._outgoing.wait(timeout=5.0):
                await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, self._me, timeout=10)
                await asyncio.sleep(DEBOUNCE_SECONDS)
            elif connection.is_closed():
                raise asyncpg.InterfaceError("connection closed")

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload != self._me:
            self.ring_here(near=False)
