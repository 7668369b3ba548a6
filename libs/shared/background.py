"""A loop that runs beside a block and ends with it, and work that a stop lets come to its end."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

CANCEL_SECONDS = 1.0
"""For work that is cancelled to give back what it holds."""

Result = TypeVar("Result")


@asynccontextmanager
async def beside(loop: Coroutine[Any, Any, None], *, name: str) -> AsyncIterator[None]:
    """Run a coroutine while the block runs; it is cancelled and waited for at the block's end.

    A coroutine that fails ends the block at once: the block is cancelled, and the failure raised.
    Else a process would go on without one of its parts, and nobody would know.
    """
    host = asyncio.current_task()
    task = asyncio.create_task(loop, name=name)
    is_over = False

    def end_block(ended: "asyncio.Task[None]") -> None:
        if host is not None and not is_over and _has_failed(ended):
            host.cancel(f"{name} has failed")

    task.add_done_callback(end_block)
    try:
        yield
    except asyncio.CancelledError:
        by_us = host is not None and _has_failed(task) and host.uncancel() == 0
        if not by_us:  # somebody else wants the block to end
            raise
    finally:
        is_over = True
        await _brought_to_its_end(task)


async def _brought_to_its_end(task: "asyncio.Task[None]") -> None:
    """Cancel a task once and wait for it; who is cancelled meanwhile is so afterwards.

    To await the task itself would cancel it a second time then, in the midst of cleaning up, and
    what has been asked of us would be lost with its answer.
    """
    task.cancel()
    ours: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as cancelled:
            ours = cancelled
    if ours is not None:
        raise ours
    if not task.cancelled():
        task.result()


def _has_failed(task: "asyncio.Task[None]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


async def to_its_end(work: Coroutine[Any, Any, Result], *, seconds: float) -> Result:
    """Do a piece of work; who is cancelled meanwhile waits for it, at most for so long.

    Work that has not come to its end by then, or when who waits is cancelled again, is cancelled.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            await asyncio.wait([task], timeout=seconds)
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_SECONDS)
            if task.done() and not task.cancelled():
                task.exception()  # looked at: nobody is left to be told
        raise
