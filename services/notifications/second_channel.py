"""The second channel: a message by HTTP to whatever sends SMS or messenger texts.

`POST {"id", "to", "text"}`. The receiver knows a repeat by its id, so whatever ended without an
answer is simply sent again.
"""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import orjson

from services.notifications.sending import Outcome, Outgoing, without_address

_PASSING = frozenset({408, 425, 429})  # besides 5xx: the receiver is busy, not unwilling


class SecondChannel:
    """Sends to one receiver. `token` is a bearer token; empty: none is sent."""

    def __init__(self, url: str, token: str, timeout: timedelta) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout.total_seconds()
        self._client: httpx.AsyncClient | None = None

    async def send(self, message: Outgoing) -> Outcome:
        """Hand a message over."""
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=self._timeout, headers=self._headers)
        body = {"id": str(message.message_id), "to": message.address, "text": message.body}
        try:
            async with asyncio.timeout(self._timeout):  # httpx limits each read, not the whole
                answer = await self._client.post(self._url, json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return Outcome("later", f"http_unreachable: {type(error).__name__}")
        except (httpx.HTTPError, TimeoutError) as error:
            return Outcome("later", f"http_cut_off: {type(error).__name__}", may_have_gone=True)
        if answer.is_success:
            return Outcome("sent", provider_id=_provider_id(answer))
        reason = f"http_{answer.status_code}: {without_address(answer.text, message)}"
        if answer.is_server_error or answer.status_code in _PASSING:
            return Outcome("later", reason)
        return Outcome("refused", reason)

    async def rest(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def _provider_id(answer: httpx.Response) -> str | None:
    """What the receiver calls the message, if it says."""
    try:
        said: Any = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return None
    found = said.get("provider_id") if isinstance(said, dict) else None
    return str(found)[:200] if found else None
