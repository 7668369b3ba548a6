"""A database of before the rules comes through the upgrade with everything it had."""

from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from libs.shared.database import Database
from libs.shared.ids import new_id
from services.routing.common_queue import try_again
from tests.conftest import PLUMBING, FreshDatabase
from tests.routing.conftest import NOON, WINDOW, Routing
from tests.upgrades import upgraded


async def test_leads_turns_and_shifts_survive(fresh_database: FreshDatabase) -> None:
    url = await fresh_database(PLUMBING)
    connection = await asyncpg.connect(url)
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await upgraded(url, "routing", "0002")
    ann, ben = sorted([new_id(), new_id()])
    for manager, turn in ((ann, 7), (ben, 6)):
        await connection.execute(
            "INSERT INTO managers (manager_id, name, last_turn, created_at, version)"
            " VALUES ($1, 'A', $2, $3, 1)",
            manager,
            turn,
            NOON,
        )
        await connection.execute("INSERT INTO shifts VALUES ($1, $2, $3)", new_id(), manager, NOON)
    held, claimed, queued = new_id(), new_id(), new_id()
    stored: tuple[tuple[UUID, str, UUID | None, datetime | None], ...] = (
        (held, "offered", ann, NOON + WINDOW),
        (claimed, "claimed", ann, None),
        (queued, "queued", None, None),
    )
    for lead, state, holder, due in stored:
        await connection.execute(
            "INSERT INTO leads (lead_id, client_id, source, channel, state, manager_id, epoch,"
            " received_at, due_at) VALUES ($1, $1, 's', 'form', $2, $3, 1, $4, $5)",
            lead,
            state,
            holder,
            NOON,
            due,
        )
    await connection.execute(
        "INSERT INTO offers VALUES ($1, 1, $2, $3, $4, 'round robin, turn 7')",
        held,
        ann,
        NOON,
        NOON + WINDOW,
    )
    await upgraded(url, "routing", "head")
    await connection.close()

    async with Database.open(url, name="test", pool_size=2) as database:
        routing = Routing(database)
        assert await routing.loads_are_right()
        rows = await database.pool.fetch("SELECT manager_id, open_leads FROM loads")
        loads = {row["manager_id"]: row["open_leads"] for row in rows}
        assert loads == {ann: 2, ben: 0}
        assert await routing.sweeps(NOON + WINDOW) == 1
        row = await routing.lead(held)
        assert (row["manager_id"], row["epoch"]) == (ben, 2)  # whose turn it was before
        later = (await database.pool.fetchval("SELECT now()")) + timedelta(seconds=1)
        assert await routing.fires(try_again, later) == 1
        await routing.offers(later)
        assert (await routing.lead(queued))["manager_id"] == ann
        assert await routing.loads_are_right()
