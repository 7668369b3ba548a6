"""What is measured runs on these: a durable PostgreSQL, a Kafka, processes of Baza's."""

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from deploy.local.kafka import Kafka
from deploy.local.postgres import Postgres
from libs.shared import migrations
from libs.shared.settings import ServiceSettings
from tests.benchmarks.http_load import answers_at
from tests.conftest import free_port
from tests.shared.issuer import AUDIENCE, Issuer

FETCH_WAIT_MS: int = ServiceSettings.model_fields["fetch_wait_ms"].default  # for floors, too


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the run's servers are.

    Attributes:
        postgres: URL of the superuser.
        kafka: host:port.
    """

    postgres: str
    kafka: str


@contextmanager
def running() -> Iterator[Servers]:
    """PostgreSQL with fsync, as users have it, and a Kafka of one node."""
    with tempfile.TemporaryDirectory(prefix="baza-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        postgres = Postgres(folder / "postgres", free_port())
        kafka = Kafka(folder / "kafka", ports=[free_port()], controller_ports=[free_port()])
        postgres.start()
        try:
            kafka.start()
            try:
                postgres.await_ready()
                kafka.await_ready()
                yield Servers(postgres.url, kafka.bootstrap)
            finally:
                kafka.stop()
        finally:
            postgres.stop()


async def new_database(postgres: str, name: str, *, template: str = "template1") -> str:
    """URL of an empty database, or of a copy; one that had this name is gone."""
    connection = await asyncpg.connect(postgres)
    await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    await connection.close()
    return f"{postgres.rsplit('/', 1)[0]}/{name}"


@asynccontextmanager
async def contacts_server(postgres: str, issuer: Issuer) -> AsyncIterator[tuple[int, str]]:
    """Port of a contacts API and the URL of its database."""
    url = await new_database(postgres, "bench_contacts")
    await migrations.upgrade("contacts", url)
    async with service_server("contacts", url, issuer) as port:
        yield port, url


@asynccontextmanager
async def service_server(service: str, url: str, issuer: Issuer) -> AsyncIterator[int]:
    """Port of a service's API on a database with its tables."""
    environment = {
        "BAZA_DATABASE_URL": url,
        "BAZA_JWKS_URL": issuer.jwks_url,
        "BAZA_JWT_ISSUER": issuer.name,
        "BAZA_JWT_AUDIENCE": AUDIENCE,
        "BAZA_LOG_LEVEL": "CRITICAL",
    }
    async with uvicorn(f"services.{service}.main:app", environment) as port:
        yield port


@asynccontextmanager
async def uvicorn(app: str, environment: Mapping[str, str]) -> AsyncIterator[int]:
    """Port of an app served by one uvicorn worker."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port)]
    with process([*command, "--no-access-log", "--log-level", "warning"], environment) as started:
        await answers_at(port, "/livez", started)
        yield port


@asynccontextmanager
async def scoring_worker(
    servers: Servers, url: str, *, prefix: str, port: int | None = None
) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """Scoring's worker as it runs in production."""
    async with service_worker("scoring", servers, url, prefix=prefix, port=port) as started:
        yield started


@asynccontextmanager
async def service_worker(
    service: str,
    servers: Servers,
    url: str,
    *,
    prefix: str,
    port: int | None = None,
) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """A worker as it runs in production: consumer, relay and timers in one process."""
    port = port or free_port()
    environment = {
        "BAZA_DATABASE_URL": url,
        "BAZA_KAFKA": servers.kafka,
        "BAZA_TOPIC_PREFIX": prefix,
        "BAZA_WORKER_PORT": str(port),
        "BAZA_LOG_LEVEL": "CRITICAL",
    }
    with process([sys.executable, "-m", f"services.{service}.worker"], environment) as started:
        await answers_at(port, "/readyz", started, status=200)
        yield started


@contextmanager
def process(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is ended with the block."""
    started = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        yield started
    finally:
        started.terminate()
        started.wait(40)
