"""A worker of the race: offers and sweeps for ever, until it is killed.

Its clock is the database's, run fast: a claim window of a minute takes two seconds.
"""

import asyncio
import sys
from datetime import UTC, datetime, timedelta

from libs.shared.database import Connection, Database, is_transient
from libs.shared.timers import Ahead, Timer, fire_next
from services.routing.claim_timeout import CLAIM_TIMEOUT
from services.routing.common_queue import TRYING_AGAIN
from services.routing.offering import OFFERING
from services.routing.unanswered import UNANSWERED

SPEED = 30
BASE = datetime(2026, 3, 2, 12, tzinfo=UTC)
_PASSED = "SELECT extract(epoch FROM clock_timestamp() - $1::timestamptz)::float8"


async def fast_now(connection: Connection, began: datetime) -> datetime:
    """The race's time."""
    passed: float = await connection.fetchval(_PASSED, began)
    return BASE + timedelta(seconds=passed * SPEED)


async def race(url: str, began: datetime) -> None:
    async with Database.open(url, name="racer", pool_size=3) as database:
        timers = (OFFERING, CLAIM_TIMEOUT, TRYING_AGAIN, UNANSWERED)
        await asyncio.gather(*(_fire_for_ever(database, began, timer) for timer in timers))


async def _fire_for_ever(database: Database, began: datetime, timer: Timer) -> None:
    """As the timer's loop does: what came along with a firing is fired next without a look."""
    ahead: Ahead | None = None
    while True:
        try:
            async with database.pool.acquire() as connection:
                found = ahead or await timer.look(connection)
                now = await fast_now(connection, began)
                fired, ahead = await fire_next(timer, connection, now, found)
        except Exception as error:
            if not is_transient(error):
                raise
            fired, ahead = 0, None
        await asyncio.sleep(0 if fired else 0.02)


if __name__ == "__main__":
    asyncio.run(race(sys.argv[1], datetime.fromisoformat(sys.argv[2])))
