"""Kill -9 in the middle of the main job: what comes out is what would have come out anyway."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.demo import purchases_story
from deploy.local.demo.cdnow import Purchase
from deploy.local.demo.doors import Doors, Refused, until
from deploy.local.demo.observer import Observer, read_current_segments
from deploy.local.ports import Ports
from deploy.local.suite import Suite
from tests.e2e.conftest import START

CUSTOMERS = [f"{number:05}" for number in range(1, 201)]
DEALS_A_CUSTOMER = 8


def history() -> list[Purchase]:
    """Eight purchases of each customer in the 590 days before the suite's clock begins."""
    first = START.date() - timedelta(days=590)
    return sorted(
        (
            Purchase(customer, number, _day(first, int(customer), number), 1000 + int(customer))
            for customer in CUSTOMERS
            for number in range(1, DEALS_A_CUSTOMER + 1)
        ),
        key=lambda purchase: (purchase.day, purchase.customer),
    )


def _day(first: date, customer: int, number: int) -> date:
    return first + timedelta(days=(customer * 13 + number * 83) % 580)


async def patiently(command: Callable[[], Awaitable[Any]]) -> Any:
    """Send a command again until it is answered, as a client behind a bad line would."""
    async with asyncio.timeout(90):
        while True:
            try:
                return await command()
            except (httpx.TransportError, Refused) as error:
                if isinstance(error, Refused) and not any(
                    f": {s} " in str(error) for s in (500, 503)
                ):
                    raise
                await asyncio.sleep(0.3)


async def bring(doors: Doors, batches: list[list[Purchase]], ids: dict[str, str]) -> int:
    """Bring purchases, each batch until it is answered; how many were created."""
    created = 0
    for batch in batches:
        body = {
            "source": purchases_story.SOURCE,
            "items": [
                {
                    "external_id": p.external_id,
                    "client_id": ids[p.customer],
                    "amount_minor": p.amount_minor,
                    "currency": "USD",
                    "closed_at": p.closed_at,
                    "outcome": "won",
                }
                for p in batch
            ],
        }
        key = {"Idempotency-Key": batch[0].external_id}
        answer = await patiently(
            lambda body=body, key=key: doors.call(  # type: ignore[misc]  # mypy knows no such defaults
                "POST", "contacts", "/v1/deals/batch", body, by="integration", headers=key
            )
        )
        created += answer["created"]
    return created


async def facts(doors: Doors, observer: Observer, purchases: int) -> dict[str, Any]:
    """What must be the same whether or not anything died: everything but ids and instants."""
    scores = await purchases_story.scored(doors, observer, purchases)
    return {
        "scores": len(scores),
        "frequency": sum(score["frequency"] for score in scores),
        "segments": sorted(score["segment"] for score in scores),
        "moves": sum(score["seq"] for score in scores),
        "gaps": observer.gaps,
        "current": await purchases_story.compare_with_current(doors, scores),
        "mismatches": await purchases_story.rescore(doors),
    }


async def undisturbed(doors: Doors, observer: Observer, batches: list[list[Purchase]]) -> Any:
    await purchases_story.activate_rules(doors)
    ids = await purchases_story.add_clients(doors, CUSTOMERS)
    assert await bring(doors, batches, ids) == len(CUSTOMERS) * DEALS_A_CUSTOMER
    return await facts(doors, observer, len(CUSTOMERS) * DEALS_A_CUSTOMER)


@pytest.mark.timeout(240)
async def test_killed_workers_apis_broker_and_database_change_nothing(
    suite: Suite, data: Path, ports: Ports
) -> None:
    purchases = history()
    batches = [purchases[n : n + 80] for n in range(0, len(purchases), 80)]
    victims: list[Callable[[], None]] = [
        suite.launch.services["scoring-worker"].kill,
        suite.launch.services["contacts-worker"].kill,
        suite.launch.services["contacts"].kill,
        suite.launch.services["scoring"].kill,
    ]
    if suite.launch.kafka is not None and suite.launch.postgres is not None:
        victims += [suite.launch.kafka.nodes[0].kill, suite.launch.postgres.kill]
    observer = Observer(suite.kafka, suite.topic_prefix)

    async with observer.watching(), Doors.open(suite) as doors:
        await patiently(lambda: purchases_story.activate_rules(doors))
        ids = await purchases_story.add_clients(doors, CUSTOMERS)
        created = 0
        for number, batch in enumerate(batches):
            if number % 3 == 1 and victims:
                victims.pop(0)()
            created += await bring(doors, [batch], ids)
        repeated = await bring(doors, batches[:3], ids)
        found = await patiently(lambda: facts(doors, observer, len(purchases)))

    # Answers of repeats are replayed by their key, so they count what the first time created.
    assert (created, repeated) == (len(purchases), 240)
    assert found["scores"] == len(CUSTOMERS)
    assert (found["gaps"], found["current"], found["mismatches"]) == (0, 0, 0)
    assert found["frequency"] == len({(p.customer, p.day) for p in purchases})


@pytest.mark.timeout(240)
async def test_a_whole_suite_killed_at_once_goes_on_where_it_was(data: Path, ports: Ports) -> None:
    purchases = history()[:800]
    batches = [purchases[n : n + 100] for n in range(0, len(purchases), 100)]
    options: dict[str, Any] = {
        "data": data,
        "ports": ports,
        "sandbox": True,
        "clock_start": START,
        "signals": False,
    }
    async with Suite.open(**options) as suite, Doors.open(suite) as doors:
        await purchases_story.activate_rules(doors)
        ids = await purchases_story.add_clients(doors, CUSTOMERS)
        await bring(doors, batches[:6], ids)
        pids = [process.pid for process in suite.launch.services.values()]
        if suite.launch.kafka is not None:
            pids += [node.pid for node in suite.launch.kafka.nodes]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        if suite.launch.postgres is not None:
            suite.launch.postgres.kill()

    async with Suite.open(**options) as suite, Doors.open(suite) as doors:
        observer = Observer(suite.kafka, suite.topic_prefix)
        async with observer.watching():
            assert await bring(doors, batches, ids) == 800
            found = await facts(doors, observer, 800)
        current = await read_current_segments(suite.kafka, suite.topic_prefix)

    assert (found["gaps"], found["current"], found["mismatches"]) == (0, 0, 0)
    assert len(current) == found["scores"]


@pytest.mark.timeout(120)
async def test_the_api_goes_on_accepting_while_kafka_is_away(suite: Suite) -> None:
    if suite.launch.kafka is None:
        pytest.fail("this test needs a Kafka of its own: unset BAZA_KAFKA")
    purchases = history()[:200]
    async with Doors.open(suite) as doors:
        await purchases_story.activate_rules(doors)
        ids = await purchases_story.add_clients(doors, CUSTOMERS)
        suite.launch.kafka.nodes[0].kill()

        accepted = await doors.call(
            "POST",
            "contacts",
            "/v1/leads",
            {"name": "Мария", "phone": "8 912 345-67-89", "source": "site"},
            by="integration",
        )
        assert await bring(doors, [purchases], ids) == 200

        async def heard() -> bool:
            lead = await doors.call("GET", "contacts", f"/v1/leads/{accepted['id']}")
            table = await doors.call("GET", "scoring", "/v1/segments", by="analyst")
            return bool(lead["state"] != "received" and table["purchases"] == 200)

        await until("what was accepted arrives", heard, limit=90)
