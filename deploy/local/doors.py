"""What the runner itself asks of a running suite: a token, and time to pass."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

import httpx

from deploy.local.processes import LocalRunnerError

ADMIN = "local-runner"


async def issue_token(
    http: httpx.AsyncClient,
    outside_url: str,
    subject: str,
    roles: Sequence[str],
    *,
    manager_id: str | None = None,
    seconds: int = 3600,
) -> str:
    """A bearer token of the development issuer."""
    request = {"subject": subject, "roles": list(roles), "seconds": seconds}
    if manager_id is not None:
        request["manager_id"] = manager_id
    answer = await http.post(f"{outside_url}/token", json=request)
    answer.raise_for_status()
    return str(answer.json()["access_token"])


async def advance_clocks(
    http: httpx.AsyncClient, outside_url: str, urls: Mapping[str, str], by: timedelta
) -> None:
    """Let time pass in every service of a sandbox.

    Raises:
        LocalRunnerError: A service refused, for example because it is no sandbox.
    """
    token = await issue_token(http, outside_url, ADMIN, ["admin"])

    async def advance(service: str, url: str) -> None:
        answer = await http.post(
            f"{url}/v1/sandbox/clock/advance",
            json={"seconds": round(by.total_seconds())},
            headers={"Authorization": f"Bearer {token}"},
        )
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise LocalRunnerError("The suite is no sandbox: start it with --sandbox")
        if answer.is_error:
            raise LocalRunnerError(f"{service} did not advance its clock: {answer.text}")

    await asyncio.gather(*(advance(service, url) for service, url in urls.items()))


async def answers(http: httpx.AsyncClient, url: str) -> bool:
    """Whether a process says at /readyz that it is ready."""
    try:
        answer = await http.get(f"{url}/readyz", timeout=2)
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK


async def require_listener(what: str, servers: str, *, seconds: float = 10.0) -> None:
    """Check that somebody listens at one of these addresses.

    Args:
        servers: `host:port`, several with commas between them.

    Raises:
        LocalRunnerError: Nobody does, for so long.
    """
    give_up_at = time.monotonic() + seconds
    while True:
        for server in servers.split(","):
            host, _, port = server.strip().rpartition(":")
            with suppress(OSError, ValueError, TimeoutError):
                async with asyncio.timeout(2):
                    _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                return
        if time.monotonic() >= give_up_at:
            raise LocalRunnerError(f"{what} does not answer at {servers}: is it running?")
        await asyncio.sleep(0.2)
