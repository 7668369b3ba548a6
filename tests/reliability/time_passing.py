"""The suite's clock goes faster than ours, and each service may lag behind a little."""

import asyncio
from collections.abc import Iterable

from tests.reliability.field import Field
from tests.reliability.patience import PatientClient

STEP_SECONDS = 10
PAUSE_SECONDS = 1.0


async def time_passing(field: Field, *, step: int = STEP_SECONDS) -> None:
    """Advance all clocks by so many seconds each second, for ever, whatever is down."""
    async with field.client("admin") as client:
        await asyncio.gather(*(_follow(client, service, step) for service in field.place.urls))


async def _follow(client: PatientClient, service: str, step: int) -> None:
    while True:
        await advance(client, [service], step)
        await asyncio.sleep(PAUSE_SECONDS)


async def advance(client: PatientClient, services: Iterable[str], seconds: int) -> None:
    """Let time pass in these services, each as soon as it answers."""
    body = {"seconds": seconds}
    path = "/v1/sandbox/clock/advance"
    await asyncio.gather(*(client.command("POST", service, path, body) for service in services))
