"""A worker stops when told to, whatever it waits for."""

import asyncio
import signal

import httpx

from libs.shared.runtime import Worker
from libs.shared.settings import ServiceSettings
from tests.conftest import FreshDatabase, free_port


async def test_a_worker_that_waits_for_its_broker_stops_when_told_to(
    fresh_database: FreshDatabase,
) -> None:
    port = free_port()
    settings = ServiceSettings.model_validate(
        {
            "database_url": await fresh_database("scoring"),
            "kafka": f"127.0.0.1:{free_port()}",  # nobody listens there
            "worker_port": port,
        }
    )
    running = asyncio.create_task(Worker(service="test", settings=settings).run())
    async with httpx.AsyncClient() as http, asyncio.timeout(20):
        while not await _lives(http, f"http://127.0.0.1:{port}/livez"):
            await asyncio.sleep(0.02)

    signal.raise_signal(signal.SIGTERM)

    async with asyncio.timeout(10):
        await running


async def _lives(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).is_success
    except httpx.TransportError:
        return False
