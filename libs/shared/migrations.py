"""Alembic migrations of a service, run by command: `python -m libs.shared.migrations contacts`.

Each service keeps its own in `services/<name>/migrations/versions`. Running twice or from two
processes at once is safe: an advisory lock lets one through, the other finds nothing to do.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import await_only

ROOT = Path(__file__).resolve().parents[2]
LOCK = 0x42617A61  # "Baza"


def configuration(service: str) -> Config:
    """Alembic's configuration for one service."""
    config = Config()
    config.set_main_option("script_location", str(ROOT / "services" / service / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def create_plumbing(connection: Connection, version: int = 1) -> None:
    """Create the tables of libs/shared; called by a service's migration with `op.get_bind()`."""
    sql = (Path(__file__).parent / f"plumbing_v{version}.sql").read_text(encoding="utf-8")
    run_sql(connection, sql)


def run_sql(connection: Connection, sql: str) -> None:
    """Run several statements at once, in the migration's transaction."""
    driver: asyncpg.Connection[asyncpg.Record] | None = connection.connection.driver_connection
    assert driver is not None  # noqa: S101  # a migration has a live connection
    await_only(driver.execute(sql))


async def upgrade(service: str, url: str) -> None:
    """Bring the service's database to the newest version.

    Raises:
        sqlalchemy.exc.DBAPIError: The database refused; nothing of the failed migration stays.
    """
    engine = create_async_engine("postgresql+asyncpg://" + url.split("://", 1)[1])

    def run(connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        config = configuration(service)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    try:
        async with engine.begin() as connection:
            await connection.run_sync(run)
    finally:
        await engine.dispose()


async def _upgrade_all(services: Sequence[str]) -> None:
    urls = {
        name: os.environ.get(f"BAZA_{name.upper()}_DATABASE_URL") or os.environ["BAZA_DATABASE_URL"]
        for name in services
    }
    for name, url in urls.items():
        await upgrade(name, url)


if __name__ == "__main__":
    asyncio.run(_upgrade_all(sys.argv[1:]))
