"""Live views: what somebody looks at is sent again whenever it has changed.

A stream looks at the database when something was committed anywhere in the service, and at least
every few seconds; it sends what it saw only if that is something else than before. It ends after
some minutes, because the token was looked at only once; a browser's EventSource comes back by
itself, and gets the view as it is then: nothing has to be kept for it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from fastapi import Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared.clock import Clock
from libs.shared.database import Database, is_transient
from libs.shared.draining import Draining

__all__ = ["EventSourceResponse", "ServerSentEvent", "views"]

LEAST_SECONDS = 1.0  # between two looks of a stream, however much is committed
LONGEST_SECONDS = 300.0
MOST_SECONDS = 5.0  # things change by time, too; also how late a stream sees that it must end

View = TypeVar("View", bound=BaseModel)
Look = Callable[[AsyncSession, Clock], Awaitable[View]]


async def views(
    request: Request, look: Look[View], *, event: str
) -> AsyncIterator[ServerSentEvent]:
    """The view now and after each change, until the client goes, or for five minutes.

    Args:
        look: Reads the view in a session of its own.
        event: The name that the client listens to.
    """
    database: Database = request.app.state.database
    clock: Clock = request.app.state.clock
    draining: Draining = request.app.state.draining
    seen: View | None = None
    ends_at = asyncio.get_running_loop().time() + LONGEST_SECONDS
    with database.wake.listening() as bell:
        while not draining.has_begun and asyncio.get_running_loop().time() < ends_at:
            try:
                async with database.reading() as session:
                    view = await look(session, clock)
            except Exception as error:
                if not is_transient(error):
                    raise
            else:
                if view != seen:
                    yield ServerSentEvent(event=event, data=view)
                    seen = view
            await asyncio.sleep(LEAST_SECONDS)
            await bell.wait(MOST_SECONDS - LEAST_SECONDS)
