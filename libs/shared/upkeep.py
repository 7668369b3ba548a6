"""Work that a service does for itself, now and then, for as long as it runs."""

import asyncio
from collections.abc import Awaitable, Callable

from libs.shared.database import Connection, Database, is_transient


async def keep_up(
    database: Database, work: Callable[[Connection], Awaitable[object]], *, every: float
) -> None:
    """Do it until cancelled; what a lost database has kept from being done is done next time.

    Args:
        work: Outside any transaction; several processes may be at it at once.
        every: Seconds between the end of one turn and the next.
    """
    while True:
        try:
            async with database.pool.acquire() as connection:
                await work(connection)
        except Exception as error:
            if not is_transient(error):
                raise
        await asyncio.sleep(every)
