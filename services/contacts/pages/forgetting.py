"""Views of pages are forgotten when they are older than the policy keeps them.

What has become of them stays: which page a client last looked at, and when, is known to scoring.
"""

from datetime import datetime, timedelta

from libs.shared.clock import Clock
from libs.shared.database import Connection, Database
from libs.shared.forgetting import EVERY_SECONDS, forget
from libs.shared.policies import newest
from libs.shared.upkeep import keep_up
from services.contacts.policies import PageViewPolicy


async def forget_views(connection: Connection, now: datetime) -> int:
    """Forget those that came too long ago; how many."""
    kept = (await newest(connection, PageViewPolicy)).body.kept_days
    return await forget(connection, "page_views", "received_at", now - timedelta(days=kept))


async def forget_old_views(database: Database, clock: Clock) -> None:
    """Forget for ever."""

    async def forget_old(connection: Connection) -> None:
        await forget_views(connection, await clock.read(connection))

    await keep_up(database, forget_old, every=EVERY_SECONDS)
