"""How many purchases there are, without counting ten million rows.

Each batch adds a row that says how many it brought, which no other batch waits for; now and then
the rows are folded together.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared.clock import Clock
from libs.shared.database import Connection, Database
from libs.shared.upkeep import keep_up

FOLD_SECONDS = 60.0
MANY = 10_000

_FOLD = """
    WITH gone AS (DELETE FROM purchase_counts WHERE id = ANY(ARRAY(
        SELECT id FROM purchase_counts ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED))
        RETURNING added)
    INSERT INTO purchase_counts (added) SELECT sum(added) FROM gone HAVING count(*) > 0
"""


async def purchase_count(session: AsyncSession) -> int:
    """Purchases heard and not wholly returned."""
    count = await session.scalar(text("SELECT sum(added)::bigint FROM purchase_counts"))
    return count or 0


async def fold_counts(connection: Connection) -> None:
    """Fold the oldest rows into one. Two at once fold different rows."""
    await connection.execute(_FOLD, MANY)


async def fold_purchase_counts(database: Database, _clock: Clock) -> None:
    """Fold for ever, once a minute."""
    await keep_up(database, fold_counts, every=FOLD_SECONDS)
