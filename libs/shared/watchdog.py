"""Ends a process that is alive but gets nowhere, so that its supervisor starts another.

There are two ways of getting nowhere. A blocked event loop is seen by a thread, because nothing on
the loop can see it. A part that waits for what never comes is seen by `note`: it has work, what it
needs for it answers, and nothing was finished for too long. An outage is not getting nowhere:
whoever notes must say that there is nothing to do while PostgreSQL or Kafka is away.

Only time in which this process was awake counts: after a SIGSTOP or a laptop's sleep nobody is to
blame for having done nothing.
"""

import asyncio
import faulthandler
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from prometheus_client import Gauge

from libs.shared.background import beside
from libs.shared.settings import ServiceSettings

log = structlog.get_logger()

EXIT_CODE = 86  # told apart from crashes (1) and kills (137) by whoever reads exit codes
TICK_SECONDS = 0.5
LONGEST_STRIDE_SECONDS = 3.0  # a longer pause between two looks means that we were not awake

STUCK = Gauge(
    "watchdog_stuck_seconds",
    "How long a part has had work and finished nothing; ends the process at the limit",
    ["part"],
)


def end_process(reason: str) -> None:
    """Tell why, show where every thread stands, and go without cleaning up: that may hang too."""
    log.critical("watchdog_ended_process", reason=reason, exit_code=EXIT_CODE)
    faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(EXIT_CODE)


@dataclass(slots=True)
class _Part:
    done: int
    seen_at: float
    stuck: float = 0.0


class Watchdog:
    """Watches one process.

    Args:
        stuck_seconds: A part that has work may finish nothing for so long; 0: for ever.
        blocked_seconds: The event loop may stand still for so long; 0: for ever.
        end: What ends the process, given the reason.
    """

    def __init__(
        self,
        *,
        stuck_seconds: float,
        blocked_seconds: float,
        end: Callable[[str], None] = end_process,
    ) -> None:
        self._stuck_seconds = stuck_seconds or float("inf")
        self._blocked_seconds = blocked_seconds or float("inf")
        self._end = end
        self._parts: dict[str, _Part] = {}
        self._beats = 0
        self._must_be_gone_at = float("inf")
        self._over = threading.Event()

    @classmethod
    def of(cls, settings: ServiceSettings) -> "Watchdog":
        """As the settings have it."""
        return cls(
            stuck_seconds=settings.watchdog_stuck_seconds,
            blocked_seconds=settings.watchdog_blocked_seconds,
        )

    def note(self, name: str, *, has_work: bool, done: int) -> None:
        """Say how a part is doing; to be called about once a second.

        Args:
            has_work: There is something it could finish now.
            done: Grows with everything that it finishes, or fails at and begins again.
        """
        now = time.monotonic()
        part = self._parts.setdefault(name, _Part(done, now))
        moved = done != part.done
        stride = min(now - part.seen_at, LONGEST_STRIDE_SECONDS)
        part.stuck = part.stuck + stride if has_work and not moved else 0.0
        part.done, part.seen_at = done, now
        STUCK.labels(name).set(part.stuck)
        if part.stuck > self._stuck_seconds:
            self._end(f"{name} has had work and finished nothing for {part.stuck:.0f} s")

    def expect_end(self, *, seconds: float) -> None:
        """The process was told to stop; a stop that takes longer is cut short."""
        self._must_be_gone_at = min(self._must_be_gone_at, time.monotonic() + seconds)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator["Watchdog"]:
        """Watch this event loop, and the time a stop takes, while the block runs."""
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        async with beside(self._beat(), name="heartbeat"):
            thread.start()
            try:
                yield self
            finally:
                self._over.set()
                thread.join(TICK_SECONDS)

    async def _beat(self) -> None:
        while True:
            self._beats += 1
            await asyncio.sleep(TICK_SECONDS)

    def _watch(self) -> None:
        silent, heard, looked_at = 0.0, -1, time.monotonic()
        while not self._over.wait(TICK_SECONDS):
            now = time.monotonic()
            stride, looked_at = min(now - looked_at, LONGEST_STRIDE_SECONDS), now
            silent = silent + stride if self._beats == heard else 0.0
            heard = self._beats
            if silent > self._blocked_seconds:
                self._end(f"the event loop has stood still for {silent:.0f} s")
            if now > self._must_be_gone_at:
                self._end("the stop takes too long")
