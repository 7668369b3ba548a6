"""The whole suite as processes, on ports and data of its own."""

import random
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.local.ports import Ports
from deploy.local.processes import LocalRunnerError
from deploy.local.suite import Suite

START = datetime(2026, 3, 2, 9, tzinfo=UTC)


@pytest.fixture
def data() -> Iterator[Path]:
    """Not pytest's: it closes its own to the user PostgreSQL runs as when we are root."""
    with tempfile.TemporaryDirectory(prefix="baza-e2e-") as name:
        yield Path(name) / "run"


@pytest.fixture
def ports() -> Ports:
    for base in random.sample(range(20_000, 32_000, 150), 20):
        found = Ports.shifted(base)
        try:
            found.require_free(nodes=1, own_postgres=True, own_kafka=True)
        except LocalRunnerError:
            continue
        return found
    raise AssertionError("no free ports in 20 tries")


@pytest.fixture
async def suite(data: Path, ports: Ports) -> AsyncIterator[Suite]:
    async with Suite.open(
        data=data, ports=ports, sandbox=True, clock_start=START, signals=False
    ) as running:
        yield running
