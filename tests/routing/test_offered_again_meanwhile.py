"""A lead that is offered again while a statement is about to take it leaves no offer open.

Locking a row takes it as it is by then, while the rest of the statement sees the moment it began.
`make chaos` found it: one such lead, and nobody was offered anything any more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.routing import claim_timeout
from services.routing.managers import attendance
from tests.routing.conftest import NOON, WINDOW, Routing

_GATE = 77
_OPEN = """
    SELECT count(*) FROM offers JOIN leads USING (lead_id) WHERE offers.ended_at IS NULL
        AND (state <> 'offered' OR leads.epoch <> offers.epoch)
"""
_AT_THE_GATE = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND NOT granted"
)


@pytest.fixture(params=["lapse", "withdraw"])
def late(request: pytest.FixtureRequest, routing: Routing) -> tuple[Any, str, Callable[..., Any]]:
    """A module, the name of its statement, and what runs it in a transaction, windows later."""
    if request.param == "lapse":
        later = NOON + 10 * WINDOW
        return claim_timeout, "_LAPSE", lambda tx: claim_timeout.reassign_lapsed_leads(tx, later)

    async def withdraw(tx: Any) -> None:
        managers = [row["manager_id"] for row in await tx.fetch("SELECT manager_id FROM managers")]
        await tx.fetch(attendance._WITHDRAW, managers, NOON + 2 * WINDOW)

    return attendance, "_WITHDRAW", withdraw


async def test_an_offer_that_a_statement_cannot_see_is_not_left_open(
    routing: Routing,
    late: tuple[Any, str, Callable[[Any], Awaitable[None]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, name, run = late
    for _ in range(2):
        await routing.manager()
    (lead,) = await routing.comes()
    plain: str = getattr(module, name)
    gated = plain.replace(
        "AND seen.epoch",
        f"AND (SELECT pg_advisory_lock_shared({_GATE})) IS NOT NULL AND seen.epoch",
    )
    assert gated != plain

    async def begins_too_early() -> None:
        async with routing.database.transaction() as tx:
            await run(tx)

    pool = routing.database.pool
    async with pool.acquire() as gatekeeper:
        await gatekeeper.execute("SELECT pg_advisory_lock($1::bigint)", _GATE)
        monkeypatch.setattr(module, name, gated)
        waiting = asyncio.create_task(begins_too_early())
        async with asyncio.timeout(20):
            while not await gatekeeper.fetchval(_AT_THE_GATE, _GATE):
                await asyncio.sleep(0.01)
        monkeypatch.setattr(module, name, plain)
        assert await routing.sweeps(NOON + WINDOW) == 1
        await gatekeeper.execute("SELECT pg_advisory_unlock($1::bigint)", _GATE)
    await waiting

    row = await routing.lead(lead)
    assert (row["state"], row["epoch"]) == ("offered", 2)  # let go; the next look takes it
    assert await pool.fetchval(_OPEN) == 0
    assert await routing.sweeps(NOON + 10 * WINDOW) == 1
    assert await pool.fetchval(_OPEN) == 0
