"""A database as an older version of a service left it."""

from alembic import command
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from libs.shared import migrations


async def upgraded(url: str, service: str, version: str) -> None:
    """Bring a service's database to a version."""
    engine = create_async_engine("postgresql+asyncpg://" + url.split("://", 1)[1])

    def run(connection: Connection) -> None:
        config = migrations.configuration(service)
        config.attributes["connection"] = connection
        command.upgrade(config, version)

    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()
