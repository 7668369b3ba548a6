"""A service's app in the test's own process, called over HTTP, with real tokens."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import httpx
from fastapi import FastAPI

from libs.shared.settings import ServiceSettings
from tests.shared.issuer import AUDIENCE, Issuer

S = TypeVar("S", bound=ServiceSettings)


@dataclass
class App:
    """A running app and a client to call it with."""

    app: FastAPI
    http: httpx.AsyncClient
    issuer: Issuer

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        role: str = "supervisor",
        manager_id: UUID | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Send a JSON request with a token of the role."""
        bearer = self.issuer.bearer(role, manager_id=manager_id)
        return await self.http.request(method, path, json=body, headers=bearer | (headers or {}))


@asynccontextmanager
async def running(
    build: Callable[[S], FastAPI], settings: type[S], url: str, **changes: Any
) -> AsyncIterator[App]:
    """The app on a database, with a token issuer of its own."""
    async with Issuer().serving() as issuer:
        app = build(
            settings(
                database_url=url,
                jwks_url=issuer.jwks_url,
                jwt_issuer=issuer.name,
                jwt_audience=AUDIENCE,
                database_pool=4,
                **changes,
            )
        )
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://baza") as http,
        ):
            yield App(app, http, issuer)


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a problem; fails when the answer is not one."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]
