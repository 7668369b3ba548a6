"""Real parts for every test: PostgreSQL and Apache Kafka, each started once a run.

A test gets a database of its own, cloned from a migrated template, and a topic prefix of its own.
`BAZA_POSTGRES` (superuser URL) and `BAZA_KAFKA` (host:port) use servers that run already.
"""

import asyncio
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from hypothesis import settings

from deploy.local.kafka import Kafka
from deploy.local.postgres import Postgres
from libs.shared import migrations
from libs.shared.database import Database
from libs.shared.ids import new_id

# Two processes share two cores, so an example may take long for no fault of its own. In CI the same
# examples are tried each time: a new one that fails is for a developer to find, not for a landing.
settings.register_profile("baza", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("baza")

PLUMBING = "plumbing"  # a database with the tables of libs/shared only

FreshDatabase = Callable[[str], Awaitable[str]]


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Superuser's URL of the run's PostgreSQL."""
    if own := os.environ.get("BAZA_POSTGRES"):
        yield own
        return
    # Not pytest's own folder: for root PostgreSQL runs as another user, who may not look in there.
    with tempfile.TemporaryDirectory(prefix="baza-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder) / "data", free_port(), fast=True)
        server.start()
        server.await_ready()
        try:
            yield server.url
        finally:
            server.stop()


@pytest.fixture(scope="session")
def kafka_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of the run's Apache Kafka."""
    if own := os.environ.get("BAZA_KAFKA"):
        yield own
        return
    broker = Kafka(
        tmp_path_factory.mktemp("kafka"), ports=[free_port()], controller_ports=[free_port()]
    )
    broker.start()
    broker.await_ready()
    try:
        yield broker.bootstrap
    finally:
        broker.stop()


def _named(server: str, name: str) -> str:
    return server.rsplit("/", 1)[0] + "/" + name


class Templates:
    """Migrated databases to clone, one for each service, made when first asked for."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._ready: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def clone(self, service: str) -> str:
        """URL of a new database with the service's tables."""
        name = f"t_{new_id().hex}"
        async with self._lock:
            template = self._ready.get(service) or await self._make(service)
            await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return _named(self._server, name)

    async def drop(self, url: str) -> None:
        await self._execute(f'DROP DATABASE IF EXISTS "{url.rsplit("/", 1)[1]}" WITH (FORCE)')

    async def _make(self, service: str) -> str:
        template = f"template_{service}_{new_id().hex[-8:]}"
        await self._execute(f'CREATE DATABASE "{template}"')
        url = _named(self._server, template)
        if service == PLUMBING:
            connection = await asyncpg.connect(url)
            for file in sorted(Path(migrations.__file__).parent.glob("plumbing_v*.sql")):
                await connection.execute(file.read_text())
            await connection.close()
        else:
            await migrations.upgrade(service, url)
        self._ready[service] = template
        return template

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self._server)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def templates(postgres_url: str) -> Templates:
    return Templates(postgres_url)


@pytest.fixture
async def fresh_database(templates: Templates) -> AsyncIterator[FreshDatabase]:
    """Makes databases for this test: `await fresh_database("contacts")` gives a URL."""
    made: list[str] = []

    async def make(service: str) -> str:
        made.append(await templates.clone(service))
        return made[-1]

    yield make
    for url in made:
        await templates.drop(url)


@pytest.fixture
async def plumbing(fresh_database: FreshDatabase) -> AsyncIterator[Database]:
    """A database with the tables of libs/shared, and pools to it."""
    async with Database.open(await fresh_database(PLUMBING), name="test", pool_size=4) as database:
        yield database


@pytest.fixture
def topic_prefix() -> str:
    """In front of every topic and group of this test."""
    return f"t{new_id().hex[-10:]}."
