"""A client behind a bad line: it sends a command again until it is answered.

Whatever dies on the way, the command carries the same Idempotency-Key each time, as a careful
frontend or integration would send it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from deploy.local.doors import issue_token

PAUSE_SECONDS = 0.4
ATTEMPT_SECONDS = 20.0
TOKEN_SECONDS = 6 * 3600
_BUSY = frozenset({"request-in-flight"})


class Refused(RuntimeError):
    """A problem that sending again will not mend."""

    def __init__(self, status: int, code: str, told: str) -> None:
        super().__init__(f"{status} {code}: {told}")
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Place:
    """Where a running suite is; all that a process of the chaos run needs to know."""

    urls: dict[str, str]
    outside_url: str
    webhook_secret: str


class PatientClient:
    """Calls services as one caller."""

    def __init__(self, place: Place, http: httpx.AsyncClient, token: str) -> None:
        self.place = place
        self._http = http
        self._token = token

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place, subject: str, *roles: str) -> AsyncIterator["PatientClient"]:
        """A client with a token of its own for the time of the block."""
        limits = httpx.Limits(max_keepalive_connections=20)
        async with httpx.AsyncClient(timeout=ATTEMPT_SECONDS, limits=limits) as http:
            token = await issue_token(
                http, place.outside_url, subject, roles, seconds=TOKEN_SECONDS
            )
            yield cls(place, http, token)

    async def command(
        self,
        method: str,
        service: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer's JSON, however often it must be asked for.

        Raises:
            Refused: A problem of the 4xx kind.
        """
        sent = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        sent |= headers or {}
        if key is not None:
            sent["Idempotency-Key"] = key
        raw = None if body is None else orjson.dumps(body)
        while True:
            answer = await self._try(method, self.place.urls[service] + path, raw, sent)
            if answer is not None:
                return answer
            await asyncio.sleep(PAUSE_SECONDS)

    async def _try(
        self, method: str, url: str, raw: bytes | None, headers: Mapping[str, str]
    ) -> Any:
        try:
            answer = await self._http.request(method, url, content=raw, headers=headers)
        except httpx.TransportError:
            return None
        if answer.status_code >= 500 or answer.status_code == 429:
            return None
        if answer.status_code < 400:
            return orjson.loads(answer.content) if answer.content else {}
        problem = _problem(answer)
        if problem.get("code") in _BUSY:
            return None
        raise Refused(answer.status_code, problem.get("code", ""), answer.text[:300])


def _problem(answer: httpx.Response) -> dict[str, Any]:
    try:
        told = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}
