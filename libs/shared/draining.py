"""The first seconds of an API's stop: not ready any more, but still answering.

Whoever shares requests out asks /readyz every few seconds. Were the port closed the moment SIGTERM
comes, requests would go on being sent to it until the next question. So the server is told of the
signal only after `drain_seconds`; until then /readyz says 503, every request is answered, and each
answer asks its client to leave the connection.
"""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import structlog

log = structlog.get_logger()


class Draining:
    """Whether this process was told to stop."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.has_begun = False

    @contextmanager
    def on_sigterm(self) -> Iterator["Draining"]:
        """Stand between SIGTERM and the server's own handler while the block runs.

        A second SIGTERM goes straight through. Where there is no handler, as under a test, or no
        main thread, nothing is changed.
        """
        servers_own = signal.getsignal(signal.SIGTERM)
        if not callable(servers_own) or threading.current_thread() is not threading.main_thread():
            yield self
            return
        loop = asyncio.get_running_loop()

        def begin(number: int, frame: FrameType | None) -> None:
            if self.has_begun or not self._seconds:
                servers_own(number, frame)
                return
            self.has_begun = True
            log.info("draining", seconds=self._seconds)
            loop.call_soon_threadsafe(loop.call_later, self._seconds, servers_own, number, frame)

        signal.signal(signal.SIGTERM, begin)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, servers_own)
