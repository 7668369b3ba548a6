"""A worker of the race: offers and sweeps for ever, until it is killed.

Its clock is the database's, run fast: a claim window of a minute takes two seconds.
"""

import asyncio
import sys
from datetime import UTC, datetime, timedelta

import asyncpg

from libs.shared.database import Database, is_transient
from services.routing.claim_timeout import reassign_lapsed_leads
from services.routing.common_queue import try_again
from services.routing.offering import offer_waiting_leads
from services.routing.unanswered import alert_unanswered_leads

SPEED = 30
BASE = datetime(2026, 3, 2, 12, tzinfo=UTC)
_PASSED = "SELECT extract(epoch FROM clock_timestamp() - $1::timestamptz)::float8"


async def fast_now(connection: asyncpg.Connection, began: datetime) -> datetime:
    """The race's time."""
    passed: float = await connection.fetchval(_PASSED, began)
    return BASE + timedelta(seconds=passed * SPEED)


async def race(url: str, began: datetime) -> None:
    async with Database.open(url, name="racer", pool_size=3) as database:
        await asyncio.gather(
            *(
                _fire_for_ever(database, began, fire)
                for fire in (
                    offer_waiting_leads,
                    reassign_lapsed_leads,
                    try_again,
                    alert_unanswered_leads,
                )
            )
        )


async def _fire_for_ever(database: Database, began: datetime, fire: object) -> None:
    while True:
        try:
            async with database.transaction(is_known_to_write=True) as tx:
                now = await fast_now(tx, began)  # type: ignore[arg-type]  # a pool's proxy
                fired = await fire(tx, now)  # type: ignore[operator]  # one of the four above
        except Exception as error:
            if not is_transient(error):
                raise
            fired = 0
        await asyncio.sleep(0 if fired else 0.02)


if __name__ == "__main__":
    asyncio.run(race(sys.argv[1], datetime.fromisoformat(sys.argv[2])))
