"""A loop that runs beside a block and ends with it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any


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
