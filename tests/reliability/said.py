"""How many events have been said so far."""

import asyncio
import contextlib
from uuid import UUID

from libs.shared.cloudevents import NotAnEvent, decode_headers
from libs.shared.events import TOPICS
from libs.shared.kafka import Reader


async def until_said(kafka: str, events: int, *, limit: float) -> None:
    """Read all topics until so many events stand there, at most so many seconds.

    Repeats are not counted: after a run's duplicates and crashes half of the records may be some.
    """
    seen: set[UUID] = set()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit), Reader(kafka, TOPICS).open() as reader:
            while len(seen) < events:
                for record in await reader.fetch(wait_seconds=0.3):
                    with contextlib.suppress(NotAnEvent):
                        seen.add(decode_headers(record.headers).id)
