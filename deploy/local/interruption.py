"""Ctrl-C and SIGTERM as an orderly cancellation."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")


@contextmanager
def cancelled_by_signals(say: Callable[[str], None]) -> Iterator[None]:
    """Cancel the current task at the first SIGINT or SIGTERM; later ones change nothing.

    Only for the main thread. Without this, asyncio knows SIGINT only, and a SIGTERM would end the
    runner before it could end its children.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    asked = False

    def on_signal() -> None:
        nonlocal asked
        say("Already stopping." if asked else "Stopping.")
        if not asked and task is not None:
            asked = True
            task.cancel()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def uninterrupted(function: Callable[[], Result]) -> Result:
    """Run a blocking function in a thread; a cancellation waits for its end.

    Otherwise a process might be started by a thread nobody waits for, after everything was stopped.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
