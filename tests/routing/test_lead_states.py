"""The database refuses a lead that cannot be: its state, its manager and its time go together."""

from itertools import product

import asyncpg
import pytest

from libs.shared.ids import new_id
from tests.routing.conftest import NOON, Routing

# Of each state: whether it has a manager, whether it has a time; None: either.
RULES: dict[str, tuple[bool | None, bool | None]] = {
    "waiting": (False, True),
    "offered": (True, True),
    "claimed": (True, False),
    "queued": (False, None),
    "muted": (False, True),
    "converted": (True, False),
    "closed": (None, False),
}
UNKNOWN = ("", "waitin", "aiting", "waiting0", "waiting01 offered", " waiting", "Offered", "lost")


@pytest.mark.parametrize("state", [*RULES, *UNKNOWN])
async def test_state_manager_and_time_go_together(routing: Routing, state: str) -> None:
    rule = RULES.get(state)
    for has_manager, has_time in product((False, True), repeat=2):
        may_be = rule is not None and rule[0] in (None, has_manager) and rule[1] in (None, has_time)
        manager, due_at = new_id() if has_manager else None, NOON if has_time else None
        insertion = routing.database.pool.execute(
            "INSERT INTO leads (lead_id, client_id, source, channel, received_at, state,"
            " manager_id, due_at) VALUES ($1, $1, 's', 'form', $2, $3, $4, $5)",
            *(new_id(), NOON, state, manager, due_at),
        )
        if may_be:
            assert await insertion == "INSERT 0 1"
        else:
            with pytest.raises(asyncpg.CheckViolationError):
                await insertion


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE offers SET ended_at = now(), ended_how = 'forgotten'",
        "UPDATE loads SET open_leads = open_leads - 2",
        "UPDATE desk SET one = false",
        "INSERT INTO desk (one) VALUES (false)",
    ],
)
async def test_what_else_cannot_be(routing: Routing, statement: str) -> None:
    await routing.manager()
    await routing.comes()
    await routing.offers()
    with pytest.raises(asyncpg.CheckViolationError):
        await routing.database.pool.execute(statement)
