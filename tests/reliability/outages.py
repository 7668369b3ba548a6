"""Times in which somebody was away, as seen from outside; Unix seconds."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from tests.reliability.field import Field

LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Outage:
    """From when to when somebody was away."""

    who: str
    began: float
    ended: float


class Watch:
    """Looks whether processes are there: who refuses connections is not, who answers is.

    A process that is there and does nothing counts as being there.

    Attributes:
        away: What was seen, by process.
    """

    def __init__(self) -> None:
        self.away: dict[str, list[Outage]] = defaultdict(list)

    async def run(self, field: Field, names: Sequence[str]) -> None:
        """Look for ever."""
        async with httpx.AsyncClient(timeout=5) as http:
            await asyncio.gather(*(self._follow(http, name, field.door(name)) for name in names))

    async def _follow(self, http: httpx.AsyncClient, name: str, door: str) -> None:
        gone_since: float | None = None
        while True:
            try:
                await http.get(f"{door}/livez")
            except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
                gone_since = gone_since or time.time()
            except httpx.TransportError:
                pass  # slow: it may well be there
            else:
                if gone_since is not None:
                    self.away[name].append(Outage(name, gone_since, time.time()))
                gone_since = None
            await asyncio.sleep(LOOK_SECONDS)


def together(one: Sequence[Outage], other: Sequence[Outage]) -> list[Outage]:
    """Times in which both were away."""
    return [
        Outage("both", max(a.began, b.began), min(a.ended, b.ended))
        for a in one
        for b in other
        if max(a.began, b.began) < min(a.ended, b.ended)
    ]
