"""What is measured runs on these: a durable PostgreSQL, a Kafka, a contacts API of one process."""

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg

from deploy.local.kafka import Kafka
from deploy.local.postgres import Postgres
from libs.shared import migrations
from tests.benchmarks.http_load import answers_at
from tests.conftest import free_port
from tests.shared.issuer import AUDIENCE, Issuer


@contextmanager
def durable_postgres() -> Iterator[str]:
    """URL of the superuser; fsync is on, as it is for users."""
    with tempfile.TemporaryDirectory(prefix="baza-bench-") as folder:
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder) / "data", free_port())
        server.start()
        server.await_ready()
        try:
            yield server.url
        finally:
            server.stop()


@contextmanager
def kafka() -> Iterator[str]:
    """host:port of a broker of one node."""
    with tempfile.TemporaryDirectory(prefix="baza-bench-") as folder:
        broker = Kafka(Path(folder), ports=[free_port()], controller_ports=[free_port()])
        broker.start()
        broker.await_ready()
        try:
            yield broker.bootstrap
        finally:
            broker.stop()


@asynccontextmanager
async def contacts_server(postgres: str, issuer: Issuer) -> AsyncIterator[tuple[int, str]]:
    """Port of a contacts API and the URL of its database."""
    url = await new_database(postgres, "bench_contacts")
    await migrations.upgrade("contacts", url)
    environment = {
        "BAZA_DATABASE_URL": url,
        "BAZA_JWKS_URL": issuer.jwks_url,
        "BAZA_JWT_ISSUER": issuer.name,
        "BAZA_JWT_AUDIENCE": AUDIENCE,
        "BAZA_LOG_LEVEL": "WARNING",
    }
    async with uvicorn("services.contacts.main:app", environment) as port:
        yield port, url


async def new_database(postgres: str, name: str) -> str:
    """URL of an empty database; one that had this name is gone."""
    connection = await asyncpg.connect(postgres)
    await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    return f"{postgres.rsplit('/', 1)[0]}/{name}"


@asynccontextmanager
async def uvicorn(app: str, environment: Mapping[str, str]) -> AsyncIterator[int]:
    """Port of an app served by one uvicorn worker."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(  # noqa: ASYNC220 - starting is quick, and nothing else runs yet
        [*command, "--no-access-log", "--log-level", "warning"],
        env={**os.environ, **environment},
    )
    try:
        await answers_at(port, "/livez", process)
        yield port
    finally:
        process.terminate()
        process.wait(20)
