"""The managers of the chaos run: they claim, in time and too late, all at once, and give back.

What they have claimed becomes a deal or is closed. Most claims go to the current offer. Some are
kept and made later, when the offer has long gone to somebody else: those must be refused. Every
claim that was answered with success is in the journal.
"""

import asyncio
import contextlib
import random
import signal
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.reliability.journal import Journal
from tests.reliability.patience import PatientClient, Place, Refused


@dataclass(frozen=True, slots=True)
class Task:
    """What the managers are told.

    Attributes:
        later_rounds: After so many looks at the floor, a claim that was kept is made, too late.
        pause: Seconds between two looks.
        page: Leads in a look, at most.
        claimed: The share of them that is claimed; of what they have, as much is then finished.
    """

    seed: int
    folder: str
    place: Place
    managers: list[str]
    later_rounds: int = 30
    pause: float = 0.4
    page: int = 100
    claimed: float = 0.15

    @classmethod
    def of(cls, text: str) -> "Task":
        told = orjson.loads(text)
        return cls(**{**told, "place": Place(**told["place"])})


class Claimant:
    """Acts for all managers, as a supervisor's token may."""

    def __init__(self, task: Task, client: PatientClient) -> None:
        self._task = task
        self._client = client
        self._journal = Journal(Path(task.folder) / "claims.jsonl")
        self._chance = random.Random(task.seed)
        self._kept: deque[tuple[int, dict[str, Any]]] = deque()

    async def run(self, stop: asyncio.Event) -> None:
        """Look at the floor, act, look again."""
        round_ = 0
        while not stop.is_set():
            round_ += 1
            await self._act(round_)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._task.pause)

    async def _act(self, round_: int) -> None:
        page, share = self._task.page, self._task.claimed
        offered = (await self._get(f"/v1/leads?state=offered&limit={page}"))["items"]
        queued = await self._get(f"/v1/queue?limit={page // 5}")
        claimed = (await self._get(f"/v1/leads?state=claimed&limit={page}"))["items"]
        work = [self._claim(lead, by=lead["manager_id"]) for lead in self._some(offered, share)]
        # Two at once for the same lead: the one it is offered to, and one it is not.
        work += [self._claim(lead, by=self._anybody()) for lead in self._some(offered, 0.05)]
        work += [self._take(lead) for lead in self._some(queued, 0.5)]
        work += [self._release(lead) for lead in self._some(claimed, 0.01)]
        work += [self._finish(lead) for lead in self._some(claimed, share)]
        self._kept += [
            (round_ + self._task.later_rounds, lead) for lead in self._some(offered, 0.1)
        ]
        while self._kept and self._kept[0][0] <= round_:
            lead = self._kept.popleft()[1]
            work.append(self._claim(lead, by=lead["manager_id"]))
        await asyncio.gather(*work)

    def _some(self, leads: list[dict[str, Any]], share: float) -> list[dict[str, Any]]:
        return [lead for lead in leads if self._chance.random() < share]

    def _anybody(self) -> str:
        return self._chance.choice(self._task.managers)

    async def _claim(self, lead: dict[str, Any], *, by: str) -> None:
        await self._do(lead, "claim", {"epoch": lead["epoch"], "manager_id": by})

    async def _take(self, lead: dict[str, Any]) -> None:
        await self._do(lead, "take", {"manager_id": self._anybody()})

    async def _release(self, lead: dict[str, Any]) -> None:
        body = {"epoch": lead["epoch"], "manager_id": lead["manager_id"], "reason": "занят"}
        await self._do(lead, "release", body)

    async def _finish(self, lead: dict[str, Any]) -> None:
        """Most become deals, some are spam; a few of them a release has just taken away."""
        if self._chance.random() < 0.7:
            body = {"epoch": lead["epoch"], "manager_id": lead["manager_id"]}
            await self._do(lead, "convert", body)
        else:
            await self._do(lead, "close", {"reason": "spam"})

    async def _do(self, lead: dict[str, Any], verb: str, body: dict[str, Any]) -> None:
        path = f"/v1/leads/{lead['id']}/{verb}"
        try:
            after = await self._client.command("POST", "routing", path, body)
        except Refused as problem:
            if problem.status != 409:
                self._journal.add({"verb": "refused", "problem": str(problem)})
            return
        # A `take` that was sent again after its answer was lost is refused, though it was done:
        # what was told is a part of the truth, the rest is in the events.
        self._journal.add(
            {
                "verb": verb,
                "lead": lead["id"],
                "manager": body.get("manager_id"),
                "epoch": body.get("epoch", after["epoch"]),
            }
        )

    async def _get(self, path: str) -> Any:
        return await self._client.command("GET", "routing", path)


async def main() -> None:
    task = Task.of(sys.argv[1])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with PatientClient.open(task.place, "claimant", "supervisor") as client:
        await Claimant(task, client).run(stop)


if __name__ == "__main__":
    asyncio.run(main())
