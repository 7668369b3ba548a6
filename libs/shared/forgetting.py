"""Rows that are kept for a time are forgotten when it is over: every ten minutes, all there are.

Small transactions, so that no lock is held long and nobody's snapshot has to see all of it. Where
the table is large, an index on the column must lead to the old ones; a BRIN is enough.
"""

from datetime import datetime

from libs.shared.database import Connection

EVERY_SECONDS = 600.0
BATCH = 10_000

_FORGET = """
    DELETE FROM {table} WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM {table} WHERE {column} < $1 LIMIT {most}))
"""


async def forget(connection: Connection, table: str, column: str, before: datetime) -> int:
    """Delete all rows that are older, outside any transaction; how many there were.

    Args:
        table: A name of our own, as is the column; neither is ever input.
    """
    statement = _FORGET.format(table=table, column=column, most=BATCH)
    total, last = 0, BATCH
    while last == BATCH:
        done = await connection.execute(statement, before)
        last = int(done.split()[-1])
        total += last
    return total


async def forget_what_cannot_come_back(connection: Connection, *, days: int) -> None:
    """Ids of events that no topic holds any more, and answers that nobody asks for again.

    Real days, also in sandbox mode: topics keep their events for as long.
    """
    before = await connection.fetchval("SELECT now() - make_interval(days => $1)", days)
    await forget(connection, "inbox", "received_at", before)
    await forget(connection, "idempotency_keys", "created_at", before)
