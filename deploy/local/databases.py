"""A database and its owner for each service, on any PostgreSQL that gives us a superuser."""

import asyncio
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg


@dataclass(frozen=True)
class ServiceDatabase:
    """A database and its owner, both named alike; `password` is for this machine only."""

    name: str
    password: str

    def url(self, server: str) -> str:
        """The owner's URL on the server that `server`, any of its URLs, points at."""
        parts = urlsplit(server)
        address = parts.netloc.rpartition("@")[2]
        login = f"{quote(self.name)}:{quote(self.password)}@{address}"
        return urlunsplit((parts.scheme, login, f"/{self.name}", parts.query, ""))


async def create_databases(server: str, databases: list[ServiceDatabase]) -> None:
    """Make each database and its owner where they are missing; others may not connect to it.

    Safe to repeat: an existing database keeps its content, its owner gets the password given.

    Args:
        server: URL of a superuser.
    """
    async with asyncio.TaskGroup() as all_at_once:
        for database in databases:
            all_at_once.create_task(_create_database(server, database))


async def drop_databases(server: str, databases: list[ServiceDatabase]) -> None:
    """Remove the databases with all their content; their owners stay."""
    connection = await asyncpg.connect(server)
    try:
        for database in databases:
            name = _quoted(database.name, '"')
            await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    finally:
        await connection.close()


async def _create_database(server: str, database: ServiceDatabase) -> None:
    name, password = _quoted(database.name, '"'), _quoted(database.password, "'")
    connection = await asyncpg.connect(server)
    try:
        known = await connection.fetchval(
            "SELECT 1 FROM pg_roles WHERE rolname = $1", database.name
        )
        verb = "ALTER" if known else "CREATE"
        await connection.execute(f"{verb} ROLE {name} LOGIN PASSWORD {password}")
        if not await connection.fetchval(
            "SELECT 1 FROM pg_database WHERE datname = $1", database.name
        ):
            await connection.execute(f"CREATE DATABASE {name} OWNER {name}")
        await connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    finally:
        await connection.close()
    inside = await asyncpg.connect(urlunsplit(urlsplit(server)._replace(path=f"/{database.name}")))
    try:
        await inside.execute(f"ALTER SCHEMA public OWNER TO {name}")
    finally:
        await inside.close()


def _quoted(text: str, mark: str) -> str:
    return mark + text.replace(mark, mark * 2) + mark
