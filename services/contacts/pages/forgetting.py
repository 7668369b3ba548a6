"""Views of pages are forgotten when they are older than the policy keeps them.

What has become of them stays: which page a client last looked at, and when, is known to scoring.
"""

import asyncio
from datetime import datetime, timedelta

from libs.shared.clock import Clock
from libs.shared.database import Connection, Database, is_transient
from libs.shared.policies import newest
from services.contacts.policies import PageViewPolicy

LOOK_SECONDS = 600.0
BATCH = 10_000

_FORGET = """
    DELETE FROM page_views WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM page_views WHERE received_at < $1 LIMIT $2))
"""


async def forget_views(connection: Connection, now: datetime) -> int:
    """Forget some of those that came too long ago; how many."""
    kept = (await newest(connection, PageViewPolicy)).body.kept_days
    done = await connection.execute(_FORGET, now - timedelta(days=kept), BATCH)
    return int(done.split()[-1])


async def forget_old_views(database: Database, clock: Clock) -> None:
    """Forget for ever, every ten minutes all there are."""
    while True:
        try:
            async with database.pool.acquire() as connection:
                while await forget_views(connection, await clock.read(connection)):
                    pass
        except Exception as error:
            if not is_transient(error):
                raise
        await asyncio.sleep(LOOK_SECONDS)
