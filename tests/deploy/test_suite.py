"""The suite as `make run` starts it, with one service to be quick: it heals, and keeps its data."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from deploy.local.data_folder import RUNNER, stop_suite
from deploy.local.doors import answers
from deploy.local.ports import Ports
from deploy.local.processes import Identity, LocalRunnerError, Roster
from deploy.local.suite import Suite

ROOT = Path(__file__).resolve().parents[2]
START = datetime(1998, 7, 1, 9, tzinfo=UTC)
SERVICE = "scoring"


@pytest.fixture
def data() -> Iterator[Path]:
    """Not pytest's: it closes its own to the user PostgreSQL runs as when we are root."""
    with tempfile.TemporaryDirectory(prefix="baza-suite-") as name:
        yield Path(name) / "run"


@pytest.fixture
def port_base() -> int:
    """Below the ports the kernel hands out: one of those may be taken by any connection."""
    for base in random.sample(range(20_000, 32_000, 150), 20):
        try:
            Ports.shifted(base).require_free(nodes=1, own_postgres=True, own_kafka=True)
        except LocalRunnerError:
            continue
        return base
    raise AssertionError("no free ports in 20 tries")


@pytest.fixture
def ports(port_base: int) -> Ports:
    return Ports.shifted(port_base)


def open_suite(data: Path, ports: Ports, said: list[str]) -> AbstractAsyncContextManager[Suite]:
    return Suite.open(
        data=data,
        ports=ports,
        services=[SERVICE],
        sandbox=True,
        clock_start=START,
        signals=False,
        say=said.append,
    )


async def clock(suite: Suite) -> datetime:
    token = await suite.token("anna", ["analyst"])
    async with httpx.AsyncClient() as http:
        answer = await http.get(
            f"{suite.urls[SERVICE]}/v1/sandbox/clock", headers={"Authorization": f"Bearer {token}"}
        )
    answer.raise_for_status()
    return datetime.fromisoformat(answer.json()["now"])


async def test_a_suite_starts_heals_and_keeps_its_data(data: Path, ports: Ports) -> None:
    said: list[str] = []
    async with open_suite(data, ports, said) as suite:
        assert abs(await clock(suite) - START) < timedelta(minutes=5)
        await suite.advance(timedelta(days=30))
        with pytest.raises(LocalRunnerError, match="already runs in"):
            async with open_suite(data, ports, []):
                pass

        suite.launch.services[SERVICE].kill()
        async with asyncio.timeout(30), httpx.AsyncClient() as http:
            while f"{SERVICE} runs again" not in said:
                await asyncio.sleep(0.05)
            while not await answers(http, suite.urls[SERVICE]):
                await asyncio.sleep(0.05)
    assert [line for line in said if "killed" in line] == []
    assert Roster(data / "processes.json").read() == []

    async with open_suite(data, ports, said) as suite:
        assert await clock(suite) - START > timedelta(days=30)


def run_and_kill(data: Path, port_base: int) -> list[Identity]:
    """Let `make run` come up and kill -9 every process of it."""
    arguments = ["--data", str(data), "--port-base", str(port_base), "--only", SERVICE]
    with subprocess.Popen(
        [sys.executable, "-m", "deploy.local", "run", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as runner:
        assert runner.stdout is not None
        while b"Ctrl-C" not in (line := runner.stdout.readline()):
            assert line, "the runner ended"
        entries = Roster(data / "processes.json").read()
        for entry in entries:
            os.kill(entry.pid, signal.SIGKILL)
    return entries


async def test_a_suite_killed_in_all_its_parts_starts_again(
    data: Path, ports: Ports, port_base: int
) -> None:
    killed = await asyncio.to_thread(run_and_kill, data, port_base)
    assert {one.name for one in killed} == {
        *(RUNNER, "postgres", "kafka-1", "outside"),
        *(SERVICE, f"{SERVICE}-worker"),
    }

    said: list[str] = []
    async with open_suite(data, ports, said) as suite:
        assert await clock(suite) >= START
    assert stop_suite(data, said.append) is False
