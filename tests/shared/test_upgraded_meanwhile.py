"""A migration changes a table under a running process."""

import asyncpg
import pytest

from libs.shared.database import Database, is_transient


async def test_a_statement_prepared_before_can_be_tried_again(plumbing: Database) -> None:
    await plumbing.pool.execute("CREATE TABLE changing (number integer)")
    async with plumbing.pool.acquire() as connection:
        await connection.fetch("SELECT * FROM changing")
        await plumbing.pool.execute("ALTER TABLE changing ALTER COLUMN number TYPE bigint")

        with pytest.raises(asyncpg.InvalidCachedStatementError) as refused:
            async with connection.transaction():
                await connection.fetch("SELECT * FROM changing")

        assert is_transient(refused.value)
        async with connection.transaction():
            assert await connection.fetch("SELECT * FROM changing") == []
