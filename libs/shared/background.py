"""A loop that runs beside a block and ends with it, and work that a stop lets come to its end."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

Result = TypeVar("Result")


@asynccontextmanager
async def beside(loop: Coroutine[Any, Any, None], *, name: str) -> AsyncIterator[None]:
    """Run a coroutine while the block runs; it is cancelled and waited for at the block's end."""
    task = asyncio.create_task(loop, name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def to_its_end(work: Coroutine[Any, Any, Result], *, seconds: float) -> Result:
    """Do a piece of work; who is cancelled meanwhile waits for it, at most for so long."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=seconds)
        task.cancel()
        if task.done() and not task.cancelled():
            task.exception()  # looked at: nobody is left to be told
        raise
