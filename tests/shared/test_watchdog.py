"""A process that gets nowhere ends; one that waits for its servers, or works long, does not."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from libs.shared import topics
from libs.shared.ids import new_id
from libs.shared.kafka import Outgoing, Publisher
from libs.shared.settings import ServiceSettings
from libs.shared.watchdog import EXIT_CODE, Watchdog
from tests.conftest import PLUMBING, FreshDatabase, free_port
from tests.shared.line import Line
from tests.shared.odd_worker import LONG_WORK_SECONDS
from tests.shared.streams import claimed, record_of

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 2


class OddWorker:
    """A worker as a process of its own, with little patience."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, door: str) -> None:
        self.process = process
        self.log = log
        self.door = door

    @classmethod
    @contextmanager
    def running(cls, what: str, log: Path, environment: dict[str, str]) -> Iterator["OddWorker"]:
        port = free_port()
        environment = (
            os.environ
            | environment
            | {
                "BAZA_WORKER_PORT": str(port),
                "BAZA_WATCHDOG_STUCK_SECONDS": str(PATIENCE),
                "BAZA_WATCHDOG_BLOCKED_SECONDS": str(PATIENCE),
                "BAZA_TOPIC_PARTITIONS": "1",
            }
        )
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.shared.odd_worker", what],
                cwd=ROOT,
                env=environment,
                stderr=output,
            )
        try:
            yield cls(process, log, f"http://127.0.0.1:{port}")
        finally:
            process.kill()
            process.wait()

    async def ends(self, within: float) -> int | None:
        """Its exit code, None if it still lives then."""
        deadline = time.monotonic() + within
        while self.process.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return self.process.returncode

    async def is_ready(self) -> None:
        async with httpx.AsyncClient() as http, asyncio.timeout(30):
            while True:
                try:
                    if (await http.get(f"{self.door}/readyz")).is_success:
                        return
                except httpx.TransportError:
                    assert self.process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.05)


async def say(kafka: str, prefix: str) -> None:
    event = claimed(new_id(), 1)
    record = record_of(event)
    publisher = Publisher(kafka, client_id="test")
    await publisher.send_all(
        [Outgoing(prefix + record.topic, event.key.encode(), record.value, record.headers)]
    )
    await publisher.close()


async def prepared(
    fresh_database: FreshDatabase, kafka_address: str, topic_prefix: str
) -> dict[str, str]:
    """An environment with a database, topics, one event said and one alarm due."""
    url = await fresh_database(PLUMBING)
    environment = {
        "BAZA_DATABASE_URL": url,
        "BAZA_KAFKA": kafka_address,
        "BAZA_TOPIC_PREFIX": topic_prefix,
    }
    await topics.ensure(
        ServiceSettings.model_validate(
            {"database_url": url, "kafka": kafka_address, "topic_prefix": topic_prefix}
        )
    )
    await say(kafka_address, topic_prefix)
    connection = await asyncpg.connect(url)
    await connection.execute(
        "CREATE TABLE alarms (due_at timestamptz); INSERT INTO alarms VALUES (now())"
    )
    await connection.close()
    return environment


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("hangs", "consumer"),
        ("blocks", "the event loop has stood still"),
        ("never_fires", "timer_alarms has had work and finished nothing"),
    ],
)
async def test_a_worker_that_gets_nowhere_ends(
    fresh_database: FreshDatabase,
    kafka_address: str,
    topic_prefix: str,
    tmp_path: Path,
    what: str,
    reason: str,
) -> None:
    environment = await prepared(fresh_database, kafka_address, topic_prefix)

    with OddWorker.running(what, tmp_path / "log", environment) as worker:
        code = await worker.ends(within=30)

    assert code == EXIT_CODE, worker.log.read_text()
    assert f'"reason":"{reason}' in worker.log.read_text()


async def test_one_long_batch_that_works_is_let_finish(
    fresh_database: FreshDatabase, kafka_address: str, topic_prefix: str, tmp_path: Path
) -> None:
    environment = await prepared(fresh_database, kafka_address, topic_prefix)
    connection = await asyncpg.connect(environment["BAZA_DATABASE_URL"])

    with OddWorker.running("works_long", tmp_path / "log", environment) as worker:
        deadline = time.monotonic() + LONG_WORK_SECONDS + 20
        while not await connection.fetchval("SELECT count(*) FROM inbox"):
            assert worker.process.poll() is None, worker.log.read_text()
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    await connection.close()


async def test_a_worker_whose_database_is_away_waits(
    fresh_database: FreshDatabase, kafka_address: str, topic_prefix: str, tmp_path: Path
) -> None:
    environment = await prepared(fresh_database, kafka_address, topic_prefix)

    async with Line.to(environment["BAZA_DATABASE_URL"]) as (line, url):
        through_line = environment | {"BAZA_DATABASE_URL": url}
        with OddWorker.running("listens", tmp_path / "log", through_line) as worker:
            await worker.is_ready()
            await line.cut()
            await say(kafka_address, topic_prefix)
            code = await worker.ends(within=4 * PATIENCE)
            await line.mend()
            await worker.is_ready()

    assert code is None, worker.log.read_text()


async def test_a_worker_whose_broker_is_away_waits(
    fresh_database: FreshDatabase, tmp_path: Path
) -> None:
    url = await fresh_database(PLUMBING)
    connection = await asyncpg.connect(url)
    await connection.execute(
        "INSERT INTO outbox (shard, event_id, topic, key, type, time)"
        " VALUES (1, gen_random_uuid(), 'leads', 'k', 'baza.lead.claimed.v1', now())"
    )
    await connection.close()
    environment = {"BAZA_DATABASE_URL": url, "BAZA_KAFKA": f"127.0.0.1:{free_port()}"}

    with OddWorker.running("listens", tmp_path / "log", environment) as worker:
        code = await worker.ends(within=4 * PATIENCE)

    assert code is None, worker.log.read_text()


async def test_a_stop_that_hangs_is_cut_short_and_a_moving_part_is_not() -> None:
    reasons: list[str] = []
    watchdog = Watchdog(stuck_seconds=0.2, blocked_seconds=60, end=reasons.append)

    async with watchdog.watching():
        for done in range(8):
            watchdog.note("moving", has_work=True, done=done)
            watchdog.note("idle", has_work=False, done=0)
            await asyncio.sleep(0.05)
        moving = list(reasons)
        watchdog.expect_end(seconds=0.1)
        async with asyncio.timeout(5):
            while not reasons:
                await asyncio.sleep(0.05)

    assert moving == []
    assert reasons[0] == "the stop takes too long"


async def test_time_in_which_the_process_did_not_run_does_not_count() -> None:
    reasons: list[str] = []
    watchdog = Watchdog(stuck_seconds=5, blocked_seconds=5, end=reasons.append)

    with pytest.MonkeyPatch.context() as patch:
        at = time.monotonic()
        patch.setattr("libs.shared.watchdog.time.monotonic", lambda: at)
        watchdog.note("relay", has_work=True, done=1)
        patch.setattr("libs.shared.watchdog.time.monotonic", lambda: at + 3600)
        watchdog.note("relay", has_work=True, done=1)

    assert reasons == []
