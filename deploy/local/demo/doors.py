"""The public doors as the demo uses them: REST with tokens, a signed webhook, the broker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson

from deploy.local.suite import Suite
from libs.shared.ids import new_id
from libs.shared.webhooks import sign

FORM = "site-form"
PAGE = 500


class Refused(RuntimeError):
    """A service answered with a problem where the story expects success."""


class Doors:
    """Calls the services of a running suite."""

    def __init__(self, suite: Suite, http: httpx.AsyncClient, tokens: Mapping[str, str]) -> None:
        self.suite = suite
        self._http = http
        self._tokens = dict(tokens)

    @classmethod
    @asynccontextmanager
    async def open(cls, suite: Suite) -> AsyncIterator["Doors"]:
        """Doors with a token for each role that the stories need."""
        tokens = {
            role: await suite.token(f"demo-{role}", [role])
            for role in ("integration", "supervisor", "analyst", "admin")
        }
        async with httpx.AsyncClient(timeout=60) as http:
            yield cls(suite, http, tokens)

    async def add_manager(self, name: str, manager_id: str) -> None:
        """Give a manager a token of their own, under their name."""
        self._tokens[name] = await self.suite.token(name, ["manager"], manager_id)

    async def call(
        self,
        method: str,
        service: str,
        path: str,
        body: Any = None,
        *,
        by: str = "supervisor",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Call a service and give back its JSON.

        Raises:
            Refused: It answered with a problem.
        """
        answer = await self._http.request(
            method,
            self.suite.urls[service] + path,
            content=None if body is None else orjson.dumps(body),
            headers={
                "Authorization": f"Bearer {self._tokens[by]}",
                "Content-Type": "application/json",
                **(headers or {}),
            },
        )
        if answer.status_code >= 400:
            raise Refused(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None

    async def all_pages(self, service: str, path: str, *, by: str = "analyst") -> list[Any]:
        """Every item of a list."""
        items: list[Any] = []
        join = "&" if "?" in path else "?"
        cursor = ""
        while True:
            page = await self.call("GET", service, f"{path}{join}limit={PAGE}{cursor}", by=by)
            items += page["items"]
            if not page["next_cursor"]:
                return items
            cursor = f"&cursor={page['next_cursor']}"

    async def submit_form(
        self, form: Mapping[str, str], *, identity: str | None = None, spoil: bool = False
    ) -> int:
        """Post a form as a site would, signed; the status that came back.

        Args:
            identity: `webhook-id`; the same again is a repeat.
            spoil: Change the body after signing it, as a forger would.
        """
        raw = orjson.dumps(form)
        headers = sign(
            self.suite.webhook_secret,
            identity=identity or f"msg_{new_id().hex}",
            raw=raw,
            at=datetime.now(UTC),
        )
        answer = await self._http.post(
            f"{self.suite.urls['contacts']}/v1/webhooks/forms/{FORM}",
            content=raw + b" " if spoil else raw,
            headers={**headers, "Content-Type": "application/json"},
        )
        return answer.status_code

    async def outside(self, path: str) -> Any:
        """What the outside world has received."""
        return (await self._http.get(self.suite.outside_url + path)).json()

    async def advance(self, by: timedelta) -> None:
        """Let time pass everywhere."""
        await self.suite.advance(by)

    async def now(self) -> datetime:
        """What the suite's clock shows."""
        shown = await self.call("GET", "contacts", "/v1/sandbox/clock", by="admin")
        return datetime.fromisoformat(shown["now"])


async def until(what: str, check: Callable[[], Awaitable[bool]], *, limit: float = 60.0) -> None:
    """Wait for something that the services will have done in a moment.

    Raises:
        TimeoutError: It has not come to pass in `limit` seconds.
    """
    try:
        async with asyncio.timeout(limit):
            while not await check():  # noqa: ASYNC110 - another process's doing
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise TimeoutError(f"{what}: not in {limit:.0f} s") from None


def in_batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """The items in stretches of at most `size`."""
    return [items[start : start + size] for start in range(0, len(items), size)]
