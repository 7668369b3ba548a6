"""Eight workers killed over and over, claims that race timeouts: one owner at every moment."""

import asyncio
import random
import subprocess
import sys
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest

from libs.shared.database import is_transient
from libs.shared.errors import Conflict
from services.routing import handing_over
from services.routing.policy import ClaimPolicy
from services.routing.reports.explaining import replay
from tests.routing.conftest import Routing, received
from tests.routing.history import check, unfair
from tests.routing.racer import BASE, fast_now

WORKERS = 8
LEADS = 800
MANAGERS = 7
KILL_SECONDS = 0.6
CLAIMANTS = 4
AT_LEAST_SECONDS = 8.0


class Race:
    """The parts of the race on one database."""

    def __init__(self, routing: Routing, url: str, seed: int) -> None:
        self.routing = routing
        self.url = url
        self.chance = random.Random(seed)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.began = datetime.now(BASE.tzinfo)
        self.claims: list[tuple[str, int, str]] = []
        self.refused = 0
        self.kills = 0
        self.is_ending = False

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.routing.racer", self.url, self.began.isoformat()]
        self.workers.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))

    def stop_all_but(self, count: int) -> None:
        while len(self.workers) > count:
            worker = self.workers.pop()
            worker.kill()
            worker.wait()

    async def kill_for_ever(self) -> None:
        while True:
            await asyncio.sleep(KILL_SECONDS)
            victim = self.workers.pop(self.chance.randrange(len(self.workers)))
            victim.kill()
            await asyncio.to_thread(victim.wait)
            self.kills += 1
            self.start()

    async def claim_for_ever(self) -> None:
        """Claims in time and too late, by whom it is offered to and by others; some give back."""
        kept: list[Any] = []
        while True:
            rows = await self.routing.database.pool.fetch(
                "SELECT lead_id, manager_id, epoch, state FROM leads"
                " WHERE state = 'offered' OR (state = 'claimed' AND NOT $1)"
                " ORDER BY CASE WHEN $1 THEN extract(epoch FROM due_at) ELSE random() END DESC"
                " LIMIT 12",
                self.is_ending,
            )
            for row in rows:
                if row["state"] == "claimed":
                    if not self.is_ending and self.chance.random() < 0.05:
                        await self.does("release", row)
                elif self.is_ending or self.chance.random() < 0.5:
                    await self.does("claim", row)
                else:
                    kept.append(row)
            if len(kept) > 60 or self.is_ending:  # most have gone to somebody else long since
                for row in kept[:30]:
                    await self.does("claim", row)
                del kept[:30]
            await asyncio.sleep(0)

    async def does(self, verb: str, row: Any) -> None:
        more: dict[str, Any] = {"reason": "занят"} if verb == "release" else {}
        try:
            async with self.routing.database.session() as session:
                raw = await (await session.connection()).get_raw_connection()
                now = await fast_now(raw.driver_connection, self.began)  # type: ignore[arg-type]  # asyncpg's own
                act = getattr(handing_over, verb)
                told = {"by": row["manager_id"], "epoch": row["epoch"], "now": now, **more}
                await act(session, row["lead_id"], **told)
        except Conflict:
            self.refused += 1
        except Exception as error:
            if not is_transient(error):
                raise
        else:
            if verb == "claim":
                self.claims.append((str(row["lead_id"]), row["epoch"], str(row["manager_id"])))

    async def has_seen_enough(self) -> bool:
        lapses: int = await self.routing.database.pool.fetchval(
            "SELECT count(*) FROM offers WHERE ended_how = 'lapsed'"
        )
        return self.kills >= 8 and self.refused > 20 and lapses > 20

    async def history(self) -> dict[str, list[tuple[str, Any]]]:
        found: dict[str, list[tuple[str, Any]]] = defaultdict(list)
        for row in await self.routing.database.pool.fetch("SELECT * FROM outbox ORDER BY id"):
            name = row["type"].removeprefix("baza.").removesuffix(".v1")
            found[row["key"]].append((name, orjson.loads(row["data"])))
        return found

    async def outcomes(self) -> list[dict[str, Any]]:
        rows = await self.routing.database.pool.fetch("SELECT outcomes FROM sittings")
        return [outcome for row in rows for outcome in orjson.loads(row["outcomes"])]


@pytest.mark.timeout(300)
async def test_one_owner_at_every_moment_whatever_is_killed(
    routing: Routing, routing_url: str
) -> None:
    race = Race(routing, routing_url, seed=6)
    for _ in range(MANAGERS):
        await routing.manager()
    claims = ClaimPolicy(claim_window_minutes=1, alert_minutes=1, queue_again_minutes=1)
    await routing.policy(claims)
    for _ in range(WORKERS):
        race.start()
    tasks = [asyncio.create_task(race.kill_for_ever())]
    tasks += [asyncio.create_task(race.claim_for_ever()) for _ in range(CLAIMANTS)]
    began = asyncio.get_running_loop().time()
    try:
        for _ in range(LEADS // 100):
            await routing.hears(*(received(at=BASE) for _ in range(100)))
            await asyncio.sleep(0.3)
        async with asyncio.timeout(240):
            while (
                asyncio.get_running_loop().time() - began < AT_LEAST_SECONDS
                or not await race.has_seen_enough()  # a slow machine takes longer for it
            ):
                await asyncio.sleep(0.2)
            tasks[0].cancel()
            race.is_ending = True
            race.stop_all_but(2)
            while await _open(routing, tasks):
                await asyncio.sleep(0.1)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        race.stop_all_but(0)
    assert [each for each in results if not isinstance(each, asyncio.CancelledError)] == []

    verdict = check(await race.history(), claims=race.claims)
    assert verdict.wrong == []
    assert sum(count for name, count in verdict.names.items() if name == "lead.claimed") >= LEADS
    assert verdict.names["lead.unclaimed"] > 20
    assert race.refused > 20
    assert race.kills >= 8
    assert await routing.loads_are_right()
    assert sum((await routing.spread()).values()) == LEADS
    outcomes = await race.outcomes()
    assert unfair(outcomes) == []
    assert len({o["manager_id"] for o in outcomes if o["manager_id"]}) == MANAGERS
    async with routing.database.pool.acquire() as connection:
        replayed = await replay(connection, BASE, BASE + timedelta(days=1))
    assert (replayed.differing, replayed.skipped) == ([], 0)
    assert replayed.checked > LEADS // 100


async def _open(routing: Routing, tasks: list[asyncio.Task[None]]) -> int:
    for task in tasks[1:]:
        if task.done():
            task.result()
    found: int = await routing.database.pool.fetchval(
        "SELECT count(*) FROM leads WHERE state <> 'claimed'"
    )
    return found
