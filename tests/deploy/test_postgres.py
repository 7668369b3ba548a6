"""PostgreSQL from the pip package: survives a kill -9, keeps services apart."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from deploy.local.databases import ServiceDatabase, create_databases
from deploy.local.postgres import SUPERUSER, Postgres, binaries
from deploy.local.processes import free_ports

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "postgres" / "databases.sh"
CONTACTS = ServiceDatabase("baza_contacts", "it's a 'password'")
SCORING = ServiceDatabase("baza_scoring", 'p@ss:w/"rd')


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's: it closes its own to the user PostgreSQL runs as when we are root."""
    with tempfile.TemporaryDirectory(prefix="baza-postgres-") as name:
        yield Path(name) / "postgres"


@pytest.fixture
def server(folder: Path) -> Iterator[Postgres]:
    """Durable, as for `make run`."""
    server = Postgres(folder, free_ports(1)[0])
    server.start()
    server.await_ready()
    yield server
    server.stop()


async def query(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_a_killed_server_comes_back_with_its_data(server: Postgres) -> None:
    await query(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")

    server.kill()
    server.start()
    server.await_ready()

    assert await query(server.url, "SELECT answer FROM kept") == 42
    assert await query(server.url, "SHOW fsync") == "on"


async def test_sessions_that_outlive_a_killed_server_are_waited_for(server: Postgres) -> None:
    session = await asyncpg.connect(server.url)
    backend = psutil.Process(await session.fetchval("SELECT pg_backend_pid()"))
    backend.suspend()  # it cannot notice that its server dies

    os.kill(server.pid, signal.SIGKILL)
    server.start()
    resuming = asyncio.get_running_loop().call_later(0.5, backend.resume)
    await asyncio.to_thread(server.await_ready)

    resuming.cancel()
    session.terminate()
    assert await query(server.url, "SELECT 1") == 1


async def test_the_pid_of_another_process_in_the_old_file_does_no_harm(
    server: Postgres, folder: Path
) -> None:
    server.kill()
    stale = folder / "cluster" / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{folder / 'cluster'}\n")

    server.start()
    server.await_ready()

    assert await query(server.url, "SELECT 1") == 1


async def test_a_server_that_outlived_its_runner_is_replaced(
    server: Postgres, folder: Path
) -> None:
    orphan = server.pid
    successor = Postgres(folder, server.port)
    successor.start()
    successor.await_ready()
    try:
        assert successor.pid != orphan
        assert not server.is_running()
        assert await query(successor.url, "SELECT 1") == 1
    finally:
        successor.stop()


async def test_a_service_owns_its_database_and_no_other_may_come_in(server: Postgres) -> None:
    for _twice in range(2):
        await create_databases(server.url, [CONTACTS, SCORING])

    contacts = CONTACTS.url(server.url)
    await query(contacts, "CREATE TABLE clients (id int)")
    owner = "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'public'"
    assert await query(contacts, owner) == "baza_contacts"
    trespasser = contacts.removesuffix("/baza_contacts") + "/baza_scoring"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await query(trespasser, "SELECT 1")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await query(ServiceDatabase("baza_contacts", "wrong").url(server.url), "SELECT 1")


async def test_the_containers_script_makes_the_same_databases(server: Postgres) -> None:
    services = ("contacts", "scoring", "routing", "notifications")
    environment = {
        "PATH": f"{binaries()}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGPASSWORD": (server.folder / "password").read_text(),
        "POSTGRES_USER": SUPERUSER,
    } | {f"{name.upper()}_DB_PASSWORD": f"'{name}'" for name in services}
    made = await asyncio.create_subprocess_exec(str(SCRIPT), env=environment)

    assert await made.wait() == 0
    for name in services:
        database = ServiceDatabase(f"baza_{name}", f"'{name}'")
        assert await query(database.url(server.url), "SELECT current_database()") == database.name
    trespasser = ServiceDatabase("baza_contacts", "'contacts'").url(server.url)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await query(trespasser.removesuffix("contacts") + "routing", "SELECT 1")
