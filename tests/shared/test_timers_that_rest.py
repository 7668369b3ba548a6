"""A timer whose work nobody waits for: a little at a time, but a backlog at once; its sessions."""

import asyncio
from contextlib import suppress
from datetime import datetime

import pytest

from libs.shared.clock import Clock
from libs.shared.database import Connection, Database
from libs.shared.timers import MANY, Timer, TimerLoop


@pytest.mark.parametrize(
    ("fires", "rests", "left"),
    [
        ([50, 50], 1000.0, [50]),
        ([MANY, MANY, 50, 50, 50, 50], 1000.0, [50]),  # two lanes, and a look whether few are left
        ([50, 50], 0.0, []),
    ],
    ids=["few", "a backlog, then few", "it does not rest"],
)
async def test_after_a_few_it_rests_and_a_backlog_it_works_off(
    plumbing: Database, fires: list[int], rests: float, left: list[int]
) -> None:
    fires = list(fires)

    async def fire(_tx: Connection, _now: datetime) -> int:
        fired = fires.pop(0) if fires else 0
        await asyncio.sleep(0.002)
        return fired

    due = "SELECT timestamptz 'epoch'"
    timer = Timer("restful", due, fire, is_patient=True, rests=rests)
    with plumbing.wake.listening() as bell:
        loop = asyncio.create_task(TimerLoop(timer, plumbing, Clock(sandbox=False), bell).run())
        await asyncio.sleep(0.5)
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop

    assert fires == left


@pytest.mark.parametrize(("by_keys", "planned"), [(True, "force_generic_plan"), (False, "auto")])
async def test_its_sessions_plan_as_it_asks(
    plumbing: Database, by_keys: bool, planned: str
) -> None:
    seen = asyncio.Queue[str]()

    async def fire(tx: Connection, _now: datetime) -> int:
        await seen.put(await tx.fetchval("SHOW plan_cache_mode"))
        return MANY  # and then by both lanes

    timer = Timer("planner", "SELECT timestamptz 'epoch'", fire, by_keys=by_keys)
    with plumbing.wake.listening() as bell:
        loop = asyncio.create_task(TimerLoop(timer, plumbing, Clock(sandbox=False), bell).run())
        async with asyncio.timeout(20):
            found = {await seen.get() for _ in range(10)}
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop

    assert found == {planned}
