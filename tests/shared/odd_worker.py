"""A real worker whose own rules misbehave: `python -m tests.shared.odd_worker hangs`."""

import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import datetime

from libs.shared.database import Connection
from libs.shared.events import LeadClaimed
from libs.shared.runtime import Worker, run_worker
from libs.shared.settings import ServiceSettings
from libs.shared.subscriptions import on
from libs.shared.timers import Timer, due_column
from tests.shared.streams import keep

LONG_WORK_SECONDS = 7


async def hangs(_events: Sequence[LeadClaimed], _tx: Connection) -> None:
    """Waits for what never comes."""
    await asyncio.Event().wait()


async def keeps_and_hangs(events: Sequence[LeadClaimed], tx: Connection) -> None:
    """Does its work and never says that it is done."""
    await keep()(events, tx)
    await asyncio.Event().wait()


async def blocks(_events: Sequence[LeadClaimed], _tx: Connection) -> None:
    """Lets nobody else have the loop."""
    time.sleep(1000)  # noqa: ASYNC251 - the point


async def works_long(_events: Sequence[LeadClaimed], tx: Connection) -> None:
    """Is busy for longer than the watchdog's patience, one statement after the other."""
    for _ in range(LONG_WORK_SECONDS * 2):
        await tx.execute("SELECT pg_sleep(0.5)")


async def listens(_events: Sequence[LeadClaimed], _tx: Connection) -> None:
    """Does nothing, at once."""


async def never_fires(_tx: Connection, _now: datetime) -> int:
    await asyncio.Event().wait()
    return 0


HANDLERS = {
    handler.__name__: handler for handler in (hangs, keeps_and_hangs, blocks, works_long, listens)
}

if __name__ == "__main__":
    what = sys.argv[1]
    timers = [Timer("alarms", due_column("alarms"), never_fires)] if what == "never_fires" else []
    handler = HANDLERS.get(what, listens)
    run_worker(Worker("test", ServiceSettings(), [on(LeadClaimed, handler)], timers))
