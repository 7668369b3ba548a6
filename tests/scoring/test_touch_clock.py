"""What is said when the day of a touch begins, and when it is over."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import pytest

from libs.shared import outbox
from libs.shared.events import TouchDue, TouchOverdue
from libs.shared.ids import new_id
from services.scoring.touches import touch_clock
from services.scoring.touches.planning import PIECE
from services.scoring.touches.touch_clock import BATCH, turn_due_touches
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


async def test_a_crash_and_a_second_worker_say_each_touch_once(
    scoring: Scoring, second_worker: Scoring
) -> None:
    clients = [new_id() for _ in range(300)]
    await scoring.hears(*(closed(client, ago=300, at=MONDAY) for client in clients))
    await scoring.plans(MONDAY)

    class Crashed(Exception):
        pass

    with pytest.raises(Crashed):
        async with scoring.database.transaction() as tx:
            assert await turn_due_touches(tx, MONDAY) == PIECE < len(clients)
            raise Crashed
    await asyncio.gather(scoring.turns_touches(MONDAY), second_worker.turns_touches(MONDAY))

    rows = await scoring.database.pool.fetch(
        "SELECT key, count(*) AS times FROM outbox WHERE topic = 'touches' GROUP BY key"
    )
    assert {row["key"]: row["times"] for row in rows} == {str(client): 1 for client in clients}


async def test_a_morning_is_turned_in_batches_and_a_few_piece_by_piece(
    scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [new_id() for _ in range(300)]
    await scoring.hears(*(closed(client, ago=300, at=MONDAY) for client in clients))
    await scoring.plans(MONDAY)
    monkeypatch.setattr(touch_clock, "BACKLOG", 150)

    async with scoring.database.transaction() as tx:
        turned = [await turn_due_touches(tx, MONDAY) for _ in range(4)]

    assert turned == [BATCH, PIECE, PIECE, 0]
