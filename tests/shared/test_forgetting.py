"""What is kept for a time is forgotten afterwards, however much of it there is."""

import pytest

from libs.shared import forgetting
from libs.shared.database import Database

DAYS = 30
_INBOX = """
    INSERT INTO inbox SELECT uuidv7(), now() - $1::int * interval '1 day'
    FROM generate_series(1, $2::int)
"""
_KEYS = """
    INSERT INTO idempotency_keys (principal, route, key, fingerprint, created_at)
    SELECT 'p', 'r', $1::int || '/' || n, '', now() - $1::int * interval '1 day'
    FROM generate_series(1, $2::int) AS n
"""


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "BATCH", 10)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("old", [0, 7, 10, 35])  # none, less than a batch, one, several
async def test_all_that_is_too_old_goes_and_nothing_else(plumbing: Database, old: int) -> None:
    for statement in (_INBOX, _KEYS):
        await plumbing.pool.execute(statement, DAYS + 1, old)
        await plumbing.pool.execute(statement, DAYS - 1, 12)

    async with plumbing.pool.acquire() as connection:
        await forgetting.forget_what_cannot_come_back(connection, days=DAYS)

    for table in ("inbox", "idempotency_keys"):
        assert await plumbing.pool.fetchval(f"SELECT count(*) FROM {table}") == 12
