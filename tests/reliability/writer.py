"""A writer of the chaos run: frontends and outside systems that push work into contacts.

Each command is a function of seed, writer and number, is sent again until it is answered, and is
then written into the journal. Killed -9 and started again, a writer goes on after the last number
in its journal. Some commands go out twice at the same moment: both must get the same answer.
"""

import asyncio
import contextlib
import itertools
import random
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any

import httpx
import orjson

from libs.shared.webhooks import sign
from tests.reliability.journal import Journal, entries
from tests.reliability.patience import PAUSE_SECONDS, PatientClient, Place, Refused

CLIENT_BATCH = 1000
FEW_DEALS = 20
START = datetime(2026, 3, 2, 6, tzinfo=UTC)  # what the suite's clock shows when the run begins
FIRST_MEETING = START + timedelta(days=20)  # before it, time is let pass only after the writing
MEETING_HOURS = 10 * 24
WEIGHTS = {"deals": 50, "client": 12, "leads": 12, "form": 10, "meeting": 8, "refund": 8}
TWO_OF_EACH = 2 * len(WEIGHTS)  # in turn before chance decides: a short run needs some of all


@dataclass(frozen=True, slots=True)
class Task:
    """What a writer is told.

    Attributes:
        pause: Seconds between two commands.
        deals: In a batch, at most.
        enough_deals: After so many its batches are small: a fast machine has not more to do for it.
        clients: Cards that it brings first, a thousand at a time.
        leads: That come at the same moment, at most.
        meetings_from: The first time for which meetings are planned.
    """

    name: str
    seed: int
    folder: str
    place: Place
    pause: float
    deals: int
    enough_deals: int | None = None
    clients: int = 150
    leads: int = 1
    meetings_from: datetime = FIRST_MEETING

    @classmethod
    def of(cls, text: str) -> "Task":
        told = orjson.loads(text)
        told["meetings_from"] = datetime.fromisoformat(told["meetings_from"])
        return cls(**{**told, "place": Place(**told["place"])})


class Writer:
    """Carries out a writer's commands, one after another."""

    def __init__(self, task: Task, client: PatientClient) -> None:
        self._task = task
        self._client = client
        path = Path(task.folder) / f"writer-{task.name}.jsonl"
        known = list(entries(path))
        self._journal = Journal(path)
        self._next = known[-1]["number"] + 1 if known else 0
        self._clients = [i for e in known if e["kind"] == "clients" for i in e["ids"]]
        self._closed = [deal for e in known if e["kind"] == "deals" for deal in e["deals"]]
        self._refunded = {e["deal"] for e in known if e["kind"] == "refund"}

    async def run(self, stop: asyncio.Event) -> None:
        """Write until told to stop; the command in hand is finished."""
        for number in itertools.count(self._next):
            entry = await self._carry_out(number)
            self._journal.add({"number": number, **entry})
            if stop.is_set() and len(self._clients) == self._task.clients:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._task.pause)

    async def _carry_out(self, number: int) -> dict[str, Any]:
        chance = random.Random(f"{self._task.seed}/{self._task.name}/{number}")
        if len(self._clients) < self._task.clients:
            return await self._bring_clients(number)
        kinds = list(WEIGHTS)
        since_clients = number - ceil(self._task.clients / CLIENT_BATCH)
        if since_clients < TWO_OF_EACH:
            kind = kinds[since_clients % len(kinds)]
        else:
            (kind,) = chance.choices(kinds, list(WEIGHTS.values()))
        name = f"{self._task.name}-{number}"
        try:
            entry: dict[str, Any] = await getattr(self, f"_do_{kind}")(name, number, chance)
        except Refused as problem:
            return {"kind": "refused", "what": kind, "problem": str(problem)}
        return {"kind": kind, **entry}

    async def _bring_clients(self, number: int) -> dict[str, Any]:
        first = len(self._clients)
        items = [
            {
                "external_id": f"{self._task.name}-{n}",
                "name": f"Покупатель {n}",
                "email": f"writer-{self._task.name}.{n}@example.com",
                "phones": [self._phone("15", n)],
            }
            for n in range(first, min(first + CLIENT_BATCH, self._task.clients))
        ]
        body = {"source": "chaos", "items": items}
        answer = await self._post("/v1/clients/batch", body, f"{self._task.name}-{number}")
        ids = [item["id"] for item in answer["items"]]
        self._clients += ids
        return {"kind": "clients", "ids": ids}

    async def _do_deals(self, name: str, _number: int, chance: random.Random) -> dict[str, Any]:
        most, enough = self._task.deals, self._task.enough_deals
        if enough is not None and len(self._closed) >= enough:
            most = min(most, FEW_DEALS)
        items = [
            {
                "external_id": f"{name}-{n}",
                "client_id": chance.choice(self._clients),
                "amount_minor": chance.randrange(20_000, 5_000_000),
                "currency": "RUB",
                "closed_at": (START - timedelta(hours=chance.randrange(1, 8_760))).isoformat(),
                "outcome": "won",
            }
            for n in range(chance.randrange(most // 2, most + 1))
        ]
        body = {"source": "chaos", "items": items}
        answer = await self._once_or_twice("/v1/deals/batch", body, name, chance)
        made = [
            [told["id"], item["client_id"], item["amount_minor"]]
            for told, item in zip(answer["items"], items, strict=True)
        ]
        self._closed += made
        return {"deals": made}

    async def _do_client(self, name: str, number: int, chance: random.Random) -> dict[str, Any]:
        body = {"name": f"Клиент {name}", "phones": [self._phone("12", number)]}
        return {"id": (await self._once_or_twice("/v1/clients", body, name, chance))["id"]}

    async def _do_leads(self, name: str, number: int, chance: random.Random) -> dict[str, Any]:
        many_at_most = self._task.leads
        many = chance.randint((many_at_most + 1) // 2, many_at_most)
        bodies = [
            {"name": f"Гость {name}-{n}", "phone": self._phone("13", number * many_at_most + n)}
            for n in range(many)
        ]
        answers = await asyncio.gather(
            *(
                self._once_or_twice("/v1/leads", {**body, "source": "chaos"}, f"{name}-{n}", chance)
                for n, body in enumerate(bodies)
            )
        )
        return {"ids": [answer["id"] for answer in answers]}

    async def _do_form(self, name: str, number: int, chance: random.Random) -> dict[str, Any]:
        raw = orjson.dumps({"name": f"Форма {name}", "phone": self._phone("14", number)})
        times = chance.randrange(1, 4)  # sites and networks repeat themselves
        await asyncio.gather(*(self._submit(name, raw) for _ in range(times)))
        return {"identity": name}

    async def _do_meeting(self, name: str, _number: int, chance: random.Random) -> dict[str, Any]:
        client, begins = chance.choice(self._clients), self._some_time(chance)
        path = f"/v1/clients/{client}/interactions/plan"
        body = {"kind": "meeting", "starts_at": begins, "topic": name}
        planned = await self._post(path, body, f"{name}-plan")
        told = {"id": planned["id"], "client": client, "version": 1, "cancelled": False}
        if chance.random() < 0.4:
            body = {"starts_at": self._some_time(chance), "reason": "перенос"}
            await self._act(planned["id"], "move", body, name)
            told["version"] = 2
        if chance.random() < 0.3:
            await self._act(planned["id"], "cancel", {"reason": "отмена"}, name)
            told["cancelled"] = True
        return told

    async def _do_refund(self, name: str, number: int, chance: random.Random) -> dict[str, Any]:
        open_deals = [deal for deal in self._closed[-500:] if deal[0] not in self._refunded]
        if not open_deals:
            return {**await self._do_client(name, number, chance), "kind": "client"}
        deal, client, amount = chance.choice(open_deals)
        part = chance.randrange(1, amount)
        body = {"amount_minor": part, "reason": "возврат"}
        path = f"/v1/deals/{deal}/reverse"
        await self._client.command(
            "POST", "contacts", path, body, key=name, headers={"If-Match": "*"}
        )
        self._refunded.add(deal)
        return {"deal": deal, "client": client, "amount": part}

    async def _act(self, meeting: str, verb: str, body: Any, name: str) -> None:
        await self._client.command(
            "POST",
            "contacts",
            f"/v1/interactions/{meeting}/{verb}",
            body,
            key=f"{name}-{verb}",
            headers={"If-Match": "*"},
        )

    async def _post(self, path: str, body: Any, key: str) -> Any:
        return await self._client.command("POST", "contacts", path, body, key=key)

    async def _once_or_twice(
        self, path: str, body: Any, key: str, chance: random.Random
    ) -> dict[str, Any]:
        times = 2 if chance.random() < 0.2 else 1
        answers = await asyncio.gather(*(self._post(path, body, key) for _ in range(times)))
        if any(answer != answers[0] for answer in answers):
            raise RuntimeError(f"{key}: two answers to one command: {answers}")
        first: dict[str, Any] = answers[0]
        return first

    async def _submit(self, identity: str, raw: bytes) -> None:
        place = self._client.place
        url = f"{place.urls['contacts']}/v1/webhooks/forms/site-form"
        async with httpx.AsyncClient(timeout=20) as http:
            while True:
                headers = sign(
                    place.webhook_secret, identity=identity, raw=raw, at=datetime.now(UTC)
                )
                headers["Content-Type"] = "application/json"
                with contextlib.suppress(httpx.TransportError):
                    answer = await http.post(url, content=raw, headers=headers)
                    if answer.status_code < 300:
                        return
                    if answer.status_code < 500:
                        raise Refused(answer.status_code, "webhook", answer.text[:300])
                await asyncio.sleep(PAUSE_SECONDS)

    def _phone(self, code: str, number: int) -> str:
        return f"+79{code}{self._task.name}{number:06d}"

    def _some_time(self, chance: random.Random) -> str:
        hours = timedelta(hours=chance.randrange(MEETING_HOURS))
        return (self._task.meetings_from + hours).isoformat()


async def main() -> None:
    task = Task.of(sys.argv[1])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with PatientClient.open(task.place, f"writer-{task.name}", "integration") as client:
        await Writer(task, client).run(stop)


if __name__ == "__main__":
    asyncio.run(main())
