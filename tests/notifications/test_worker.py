"""The worker as it really runs: events in by Kafka, messages out, and a kill -9 in the middle."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from libs.shared import topics
from libs.shared.events import Event
from libs.shared.ids import new_id
from libs.shared.kafka import Outgoing, Publisher
from libs.shared.migrations import ROOT
from services.notifications.settings import NotificationsSettings
from tests.conftest import free_port
from tests.notifications.conftest import Notifications, client, planned
from tests.notifications.test_staff_alerts import claimed, person, unanswered
from tests.shared.streams import record_of

MEETINGS = 60


@asynccontextmanager
async def worker(settings: NotificationsSettings, log: Path) -> AsyncIterator[int]:
    """A worker process with these settings; its pid. It is killed at the end."""
    environment = {
        f"BAZA_{name.upper()}": str(value)
        for name, value in settings.model_dump(exclude={"cors_origins"}).items()
        if value is not None
    }
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.notifications.worker"),
            cwd=ROOT,
            env=os.environ | environment,
            stdout=output,
            stderr=output,
        )
    try:
        async with httpx.AsyncClient() as http:
            url = f"http://127.0.0.1:{settings.worker_port}/readyz"
            async with asyncio.timeout(40):
                while not await _ready(http, url):
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
        yield process.pid
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _ready(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).is_success
    except httpx.TransportError:
        return False


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(40):
        while not check():
            await asyncio.sleep(0.01)


async def publish(settings: NotificationsSettings, events: list[Event]) -> None:
    await topics.ensure(settings)
    publisher = Publisher(settings.kafka, client_id="test")
    records = [record_of(event) for event in events]
    await publisher.send_all(
        [
            Outgoing(
                topic=settings.topic_prefix + record.topic,
                key=record.key or b"",
                value=record.value or b"",
                headers=list(record.headers),
            )
            for record in records
        ]
    )
    await publisher.close()


def settings_of(
    notifications: Notifications, kafka_address: str, topic_prefix: str
) -> NotificationsSettings:
    return NotificationsSettings(
        database_url=notifications.database.dsn,
        kafka=kafka_address,
        topic_prefix=topic_prefix,
        worker_port=free_port(),
        smtp_url=notifications.post.url,
        second_channel_url=notifications.receiver.url,
        send_timeout_seconds=1,
        send_lease_seconds=2,
    )


async def test_a_killed_worker_loses_no_message_and_repeats_none_on_the_second_channel(
    notifications: Notifications, kafka_address: str, topic_prefix: str, tmp_path: Path
) -> None:
    settings = settings_of(notifications, kafka_address, topic_prefix)
    now = datetime.now(UTC)
    begins, told = now + timedelta(minutes=10), now - timedelta(days=3)
    anna = new_id()
    meetings = [
        planned(anna, new_id(), starts_at=begins, at=told, topic=f"Встреча {number}.")
        for number in range(MEETINGS)
    ]
    await publish(settings, [client(anna), *meetings])

    async with worker(settings, tmp_path / "log") as pid:
        await until(lambda: len(notifications.receiver.texts) > MEETINGS // 10)
        os.kill(pid, signal.SIGKILL)
    async with worker(settings, tmp_path / "log"):
        async with asyncio.timeout(40):
            while await _unsettled(notifications):
                await asyncio.sleep(0.05)

    letters = {mail["Message-ID"] for mail in notifications.post.mails}
    assert (len(letters), len(notifications.receiver.texts)) == (MEETINGS, MEETINGS)
    assert len({text for _, text in notifications.receiver.texts}) == MEETINGS
    assert {row["state"] for row in await notifications.deliveries()} == {"sent"}


async def _unsettled(notifications: Notifications) -> int:
    """Messages that are still to be sent, those not yet made included."""
    settled: int = await notifications.database.pool.fetchval(
        "SELECT count(*) FROM deliveries WHERE settled_at IS NOT NULL"
    )
    return 2 * MEETINGS - settled


async def test_a_killed_worker_tells_staff_of_each_lead_once_and_of_none_that_is_taken(
    notifications: Notifications, kafka_address: str, topic_prefix: str, tmp_path: Path
) -> None:
    settings = settings_of(notifications, kafka_address, topic_prefix)
    now = datetime.now(UTC)
    people = [await person(notifications, f"Олег {number}.") for number in range(MEETINGS)]
    leads, taken = [new_id() for _ in people], new_id()
    # The last is due some minutes from now and taken before.
    later = unanswered(taken, people[0], at=now + timedelta(minutes=5))
    told = [unanswered(lead, one, at=now) for lead, one in zip(leads, people, strict=True)]
    await publish(settings, [*told, later, claimed(taken, people[0], at=now)])

    async with worker(settings, tmp_path / "log") as pid:
        await until(lambda: len(notifications.receiver.texts) > MEETINGS // 10)
        os.kill(pid, signal.SIGKILL)
    async with worker(settings, tmp_path / "log"):
        await until(lambda: len(notifications.receiver.texts) == MEETINGS)
        async with asyncio.timeout(40):
            while states := await _states_of_alerts(notifications):
                if states == {"sent": MEETINGS, "cancelled": 1}:
                    break
                await asyncio.sleep(0.05)

    assert {to for to, _ in notifications.receiver.texts} == {f"telegram:{one}" for one in people}
    assert len(notifications.receiver.texts) == MEETINGS


async def _states_of_alerts(notifications: Notifications) -> dict[str, int]:
    rows = await notifications.database.pool.fetch(
        "SELECT state, count(*) FROM alerts GROUP BY state"
    )
    return {row["state"]: row["count"] for row in rows}
