"""The floor as it changes: what waits, who is there, whose clock runs out next.

A picture is sent at once, after every commit that changed it (at most one a second), and a comment
in between so that proxies keep the connection. It ends after some minutes, for the token has been
looked at only once; a browser's EventSource comes back by itself.
"""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from starlette.requests import Request

from libs.shared.clock import Clock
from libs.shared.database import Connection, Database, dumps

LONGEST_SECONDS = 300.0
QUIET_SECONDS = 15.0
LOOK_SECONDS = 1.0

_COUNTS = """
    SELECT count(*) FILTER (WHERE state = 'waiting') AS waiting,
        count(*) FILTER (WHERE state = 'queued') AS queued,
        count(*) FILTER (WHERE state = 'muted') AS muted,
        count(*) FILTER (WHERE state = 'offered') AS offered
    FROM leads WHERE state IN ('waiting', 'queued', 'muted', 'offered')
"""
_PEOPLE = """
    SELECT m.manager_id, m.name, m.presence, coalesce(l.open_leads, 0) AS open_leads
    FROM managers AS m LEFT JOIN loads AS l USING (manager_id) WHERE m.is_active
    ORDER BY m.name, m.manager_id
"""
_CLOCKS = """
    SELECT lead_id, manager_id, epoch, due_at AS runs_out_at, received_at FROM leads
    WHERE state = 'offered' ORDER BY due_at LIMIT 20
"""
_OLDEST = """
    SELECT lead_id, received_at FROM leads WHERE state = 'queued'
    ORDER BY received_at, lead_id LIMIT 20
"""


async def picture(connection: Connection) -> dict[str, Any]:
    """The floor as it is."""
    counts = await connection.fetchrow(_COUNTS)
    assert counts is not None  # noqa: S101  # aggregates always answer
    return {
        "counts": dict(counts),
        "managers": [dict(row) for row in await connection.fetch(_PEOPLE)],
        "clocks": [dict(row) for row in await connection.fetch(_CLOCKS)],
        "queue": [dict(row) for row in await connection.fetch(_OLDEST)],
    }


async def stream(request: Request, database: Database, clock: Clock) -> AsyncIterator[str]:
    """Server-sent events: `floor` with a picture whenever it differs from the last."""
    with database.wake.listening() as bell:
        began, said_at, last = clock.now(), clock.now(), ""
        yield "retry: 1000\n\n"
        while (clock.now() - began).total_seconds() < LONGEST_SECONDS:
            if request.app.state.draining.has_begun or await request.is_disconnected():
                return
            async with database.pool.acquire() as connection:
                now_there = dumps(await picture(connection))
            if now_there != last:
                last, said_at = now_there, clock.now()
                yield _event(last, said_at)
            elif (clock.now() - said_at).total_seconds() >= QUIET_SECONDS:
                said_at = clock.now()
                yield ": still here\n\n"
            await bell.wait(LOOK_SECONDS)


def _event(data: str, at: datetime) -> str:
    return f"event: floor\nid: {at.isoformat()}\ndata: {data}\n\n"
