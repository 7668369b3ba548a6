"""What is said when the day of a touch begins, and when it is over."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

from libs.shared import outbox
from libs.shared.events import TouchDue, TouchOverdue
from libs.shared.ids import new_id
from tests.scoring.conftest import Scoring, closed

MONDAY = datetime(2025, 3, 3, 9, tzinfo=UTC)  # noon in Moscow
LATER = MONDAY + timedelta(days=1)


async def test_what_is_said_is_as_the_events_have_it(scoring: Scoring) -> None:
    owned, common = new_id(), new_id()
    owner = new_id()
    await scoring.hears(*(closed(client, ago=300, at=MONDAY) for client in (owned, common)))
    await scoring.plans(MONDAY)
    pool = scoring.database.pool
    await pool.execute("UPDATE touch_plans SET owner_id = $2 WHERE client_id = $1", owned, owner)
    await pool.execute("DELETE FROM outbox")
    plans = {row["client_id"]: row for row in await pool.fetch("SELECT * FROM touch_plans")}

    for kind, at in ((TouchDue, MONDAY), (TouchOverdue, MONDAY + timedelta(days=30))):
        if kind is TouchDue:  # a day that lasts
            await pool.execute("UPDATE touch_plans SET closes_at = $1, due_at = opens_at", LATER)
        await scoring.turns_touches(at)
        rows = await pool.fetch("DELETE FROM outbox RETURNING *")
        assert {row["key"] for row in rows} == {str(owned), str(common)}
        for row in rows:
            plan = plans[UUID(row["key"])]
            told = kind(
                client_id=plan["client_id"],
                touch_no=plan["touch_no"],
                manager_id=owner if plan["client_id"] == owned else None,
                segment=plan["segment"],
                priority=plan["priority"],
                due_on=plan["due_on"],
                occurred_at=plan["opens_at"] if kind is TouchDue else LATER,
            )
            assert kind.model_validate_json(row["data"]) == told
            expected = dict(zip(outbox.COLUMNS, outbox.row_of(told), strict=True))
            same = set(outbox.COLUMNS) - {"event_id", "data"}
            assert {name: row[name] for name in same} == {name: expected[name] for name in same}
            assert list(orjson.loads(row["data"])) == list(orjson.loads(told.data()))
