"""Every process is told to stop under load, one after the other: nobody outside notices."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.demo import purchases_story
from deploy.local.demo.doors import Doors, until
from deploy.local.demo.observer import Observer
from deploy.local.doors import answers
from deploy.local.plan import Plan
from deploy.local.ports import SERVICES, Ports
from deploy.local.processes import free_ports
from deploy.local.suite import Suite
from deploy.local.supervision import PythonProcess
from libs.shared.background import beside
from tests.e2e.conftest import START
from tests.e2e.test_nothing_is_lost import CUSTOMERS, history

ROOT = Path(__file__).resolve().parents[2]
DRAIN_SECONDS = 2
STOP_LIMIT_SECONDS = 30
READS = {
    "contacts": "/v1/clients?limit=5",
    "scoring": "/v1/segments",
    "routing": "/v1/managers",
    "notifications": "/v1/templates",
}


@dataclass
class Balancer:
    """Sends requests to whoever says that it is ready, as a proxy in front of two APIs does."""

    http: httpx.AsyncClient
    replicas: dict[str, list[str]]
    token: str
    ready: set[str] = field(default_factory=set)
    answered: int = 0
    failed: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def looking(self) -> AsyncIterator["Balancer"]:
        async with AsyncExitStack() as stack:
            for url in (url for urls in self.replicas.values() for url in urls):
                await stack.enter_async_context(beside(self._look(url), name=url))
            async with asyncio.timeout(60):
                while len(self.ready) < sum(map(len, self.replicas.values())):
                    await asyncio.sleep(0.05)
            yield self

    async def _look(self, url: str) -> None:
        async with httpx.AsyncClient() as http:
            while True:
                (self.ready.add if await answers(http, url) else self.ready.discard)(url)
                await asyncio.sleep(0.1)

    async def send(self, method: str, service: str, path: str, body: Any = None) -> Any:
        """The answer's JSON; a failure is written down."""
        ready = [url for url in self.replicas[service] if url in self.ready]
        if not ready:
            self.failed.append(f"{method} {service} {path}: no API is ready")
            return None
        url = random.choice(ready)
        try:
            answer = await self.http.request(
                method, url + path, json=body, headers={"Authorization": f"Bearer {self.token}"}
            )
        except httpx.TransportError as error:
            self.failed.append(f"{method} {service} {path}: {error!r}")
            return None
        self.answered += 1
        if answer.is_error:
            self.failed.append(f"{method} {service} {path}: {answer.status_code} {answer.text}")
            return None
        return answer.json()


async def duplicates(http: httpx.AsyncClient, suite: Suite, service: str) -> float:
    """Events that this life of a worker has heard before."""
    text = (await http.get(f"{suite.worker_urls[service]}/metrics")).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "inbox_duplicates_total"
    )


async def stop_and_see_it_back(
    process: PythonProcess, back: Callable[[], Awaitable[bool]], start: Callable[[], None] | None
) -> float:
    """Tell a process to stop; how long that took. Returns when its successor is back."""
    pid, began = process.pid, time.monotonic()
    os.kill(pid, signal.SIGTERM)
    while True:
        with suppress(ProcessLookupError):
            if process.pid == pid and process.is_running():
                await asyncio.sleep(0.02)
                continue
        break
    seconds = time.monotonic() - began
    if start is not None:
        start()
    await until(f"{process.name} is back", back, limit=40)
    return seconds


@asynccontextmanager
async def second_apis(suite: Suite, logs: Path) -> AsyncIterator[dict[str, PythonProcess]]:
    """Another API of each service, by URL."""
    plan: Plan = suite.launch._plan
    found: dict[str, PythonProcess] = {}
    for service, port in zip(SERVICES, free_ports(len(SERVICES)), strict=True):
        arguments = [*suite.launch.services[service].arguments[:-1], str(port)]
        process = PythonProcess(
            f"{service}-second",
            arguments,
            env=plan.environment_of(service),
            log=logs / f"{service}-second.log",
            cwd=ROOT,
        )
        process.start()
        found[f"http://127.0.0.1:{port}"] = process
    try:
        yield found
    finally:
        for process in found.values():
            process.stop(STOP_LIMIT_SECONDS)


class Load:
    """Deals and leads that come in, and reads of everything, until it is over."""

    def __init__(self, balancer: Balancer, deals: Sequence[dict[str, Any]]) -> None:
        self._balancer = balancer
        self._deals = deals
        self.deals = 0
        self.leads: list[str] = []
        self.over = asyncio.Event()

    async def run(self) -> None:
        reads = [self._read(service) for service in SERVICES]
        await asyncio.gather(self._bring_deals(), self._bring_leads(), *reads)

    async def _bring_deals(self) -> None:
        for begin in range(0, len(self._deals), 8):
            body = {"source": "cdnow", "items": self._deals[begin : begin + 8]}
            answer = await self._balancer.send("POST", "contacts", "/v1/deals/batch", body)
            self.deals += answer["created"] if answer else 0
            await asyncio.sleep(0 if self.over.is_set() else 0.1)

    async def _bring_leads(self) -> None:
        while not self.over.is_set():
            phone = f"+7912{len(self.leads):07}"
            body = {"name": "Мария", "phone": phone, "source": "site"}
            answer = await self._balancer.send("POST", "contacts", "/v1/leads", body)
            if answer:
                self.leads.append(answer["id"])
            await asyncio.sleep(0.1)

    async def _read(self, service: str) -> None:
        while not self.over.is_set():
            await self._balancer.send("GET", service, READS[service])
            await asyncio.sleep(0.05)


async def roll(
    suite: Suite, others: dict[str, PythonProcess], http: httpx.AsyncClient, balancer: Balancer
) -> tuple[list[float], float]:
    """Restart everything, half of the APIs at a time; how long stops took, and repeats heard.

    The second half waits until the balancer has seen the first: who goes by an API's own word has
    a moment in which the balancer knows of none.
    """
    services = suite.launch.services
    stops: list[float] = []

    def seen(url: str) -> Callable[[], Awaitable[bool]]:
        async def is_seen() -> bool:
            return url in balancer.ready

        return is_seen

    def works(service: str) -> Callable[[], Awaitable[bool]]:
        return partial(answers, http, suite.worker_urls[service])

    async def together(restarts: Sequence[Awaitable[float]]) -> None:
        stops.extend(await asyncio.gather(*restarts))

    await together([stop_and_see_it_back(services[s], seen(suite.urls[s]), None) for s in SERVICES])
    await together(
        [stop_and_see_it_back(process, seen(url), process.start) for url, process in others.items()]
    )
    heard_again = sum([await duplicates(http, suite, s) for s in SERVICES])
    await together(
        [stop_and_see_it_back(services[f"{s}-worker"], works(s), None) for s in SERVICES]
    )
    return stops, heard_again


@pytest.mark.timeout(300)
async def test_a_rolling_restart_under_load_is_noticed_by_nobody(
    data: Path, ports: Ports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAZA_DRAIN_SECONDS", str(DRAIN_SECONDS))
    options: dict[str, Any] = {"sandbox": True, "clock_start": START, "signals": False}
    async with AsyncExitStack() as stack:
        suite = await stack.enter_async_context(Suite.open(data=data, ports=ports, **options))
        doors = await stack.enter_async_context(Doors.open(suite))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=30))
        observer = Observer(suite.kafka, suite.topic_prefix)
        await stack.enter_async_context(observer.watching())
        await purchases_story.activate_rules(doors)
        ids = await purchases_story.add_clients(doors, CUSTOMERS)
        seconds = await stack.enter_async_context(second_apis(suite, tmp_path))
        first_urls = [suite.urls[service] for service in SERVICES]
        pairs = zip(SERVICES, first_urls, seconds, strict=True)
        balancer = Balancer(
            http,
            {service: [first, second] for service, first, second in pairs},
            await suite.token(
                "roll", ["integration", "supervisor", "analyst", "admin", "marketer"]
            ),
        )
        await stack.enter_async_context(balancer.looking())
        load = Load(balancer, deals_of(ids))
        running = asyncio.create_task(load.run())
        stops, heard_again = await roll(suite, seconds, http, balancer)
        load.over.set()
        await running

        scores = await purchases_story.scored(doors, observer, len(history()))
        leads = await settled_leads(doors, load.leads)
        heard_again += sum([await duplicates(http, suite, s) for s in SERVICES])

    assert balancer.failed == []
    assert balancer.answered > 500
    assert load.deals == len(history())
    assert len(scores) == len(CUSTOMERS)
    assert leads == len(load.leads)
    assert (observer.repeats, observer.gaps, heard_again) == (0, 0, 0)
    assert max(stops) < STOP_LIMIT_SECONDS


def deals_of(ids: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "external_id": purchase.external_id,
            "client_id": ids[purchase.customer],
            "amount_minor": purchase.amount_minor,
            "currency": "USD",
            "closed_at": purchase.closed_at,
            "outcome": "won",
        }
        for purchase in history()
    ]


async def settled_leads(doors: Doors, leads: Sequence[str]) -> int:
    """How many leads have come to routing and back."""
    found = 0
    for lead in leads:

        async def heard(lead: str = lead) -> bool:
            shown = await doors.call("GET", "contacts", f"/v1/leads/{lead}")
            return bool(shown["state"] != "received")

        await until("the lead is heard of", heard)
        found += 1
    return found
