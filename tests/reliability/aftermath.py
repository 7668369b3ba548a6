"""After the storm: time travels, dead letters are mended, every lead is claimed."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg

from services.routing.reports.explaining import Replayed, replay
from tests.reliability import injected
from tests.reliability.field import Field
from tests.reliability.patience import PatientClient, Refused
from tests.reliability.time_passing import advance
from tests.reliability.writer import FIRST_MEETING, MEETING_HOURS, START

STEP = timedelta(hours=6)
SETTLED_SECONDS = 60.0
PAGE = 200


async def travel(field: Field, *, pause: float, after_step: Callable[[], Awaitable[None]]) -> None:
    """Let all days with meetings pass, six hours at a time, so many seconds for each."""
    first = FIRST_MEETING - timedelta(days=1, hours=2) - START
    steps = int((timedelta(hours=MEETING_HOURS) + timedelta(days=2)) / STEP)
    async with field.client("admin") as client:
        await advance(client, field.place.urls, int(first.total_seconds()))
        for _ in range(steps):
            await asyncio.sleep(pause)
            await advance(client, field.place.urls, int(STEP.total_seconds()))
            await after_step()


async def settle_poison(field: Field) -> None:
    """Mend what can be mended and discard the rest, until no letter is open."""
    async with field.client("supervisor", "admin") as client, asyncio.timeout(SETTLED_SECONDS):
        services = list(field.place.urls)
        while await _settle_some(client, services):
            await asyncio.sleep(0.3)
        await field.discard_ledger_letters()


async def _settle_some(client: PatientClient, services: list[str]) -> int:
    still_open = 0
    for service in services:
        for state in ("poison", "waiting", "replaying"):
            path = f"/v1/dead-letters?state={state}&limit={PAGE}"
            page = await client.command("GET", service, path)
            still_open += len(page["items"])
            if state == "poison":
                for letter in page["items"]:
                    await _settle(client, service, letter["id"])
    return still_open


async def _settle(client: PatientClient, service: str, letter: int) -> None:
    path = f"/v1/dead-letters/{letter}"
    found = await client.command("GET", service, path)
    data: dict[str, Any] | None = found["data"]
    try:
        if data is not None and data.get("currency") == injected.NO_RATE:
            mended = {"data": {**data, "currency": "RUB"}}
            await client.command("POST", service, f"{path}/replay", mended)
        else:
            await client.command("POST", service, f"{path}/discard", {"reason": "chaos"})
    except Refused as problem:
        if problem.status != 409:  # done before, its answer was lost
            raise


async def claim_all(field: Field) -> None:
    """Give every lead that has no owner to somebody, the way people do."""
    async with field.client("supervisor") as client, asyncio.timeout(120):
        while True:
            offered = await _leads(client, "offered")
            queued = await _leads(client, "queued")
            waiting = await _leads(client, "waiting")
            if not offered and not queued and not waiting:
                return
            for lead in offered:
                body = {"epoch": lead["epoch"], "manager_id": lead["manager_id"]}
                await _do(client, lead, "claim", body)
            for lead in queued:
                await _do(client, lead, "take", {"manager_id": field.managers[0]})
            await asyncio.sleep(0.1)


async def _leads(client: PatientClient, state: str) -> list[dict[str, Any]]:
    page = await client.command("GET", "routing", f"/v1/leads?state={state}&limit={PAGE}")
    items: list[dict[str, Any]] = page["items"]
    return items


async def _do(client: PatientClient, lead: dict[str, Any], verb: str, body: Any) -> None:
    try:
        await client.command("POST", "routing", f"/v1/leads/{lead['id']}/{verb}", body)
    except Refused as problem:
        if problem.status != 409:
            raise


async def decide_again(field: Field) -> Replayed:
    """Make every decision of routing again from its record."""
    connection = await asyncpg.connect(field.database_urls()["routing"])
    try:
        return await replay(connection, START - timedelta(days=1), START + timedelta(days=365))
    finally:
        await connection.close()


async def rescore(field: Field) -> int:
    """Have scoring compute everything anew; how many clients differ from the stream's result."""
    async with field.client("analyst") as client, asyncio.timeout(120):
        job = await client.command("POST", "scoring", "/v1/rescorings", {}, key="after-chaos")
        path = f"/v1/rescorings/{job['rescoring_id']}"
        while True:
            found = await client.command("GET", "scoring", path)
            if found["finished_at"]:
                return int(found["mismatches"] + found["history_mismatches"])
            await asyncio.sleep(0.1)
