"""The planner of touches at its work: when it begins, how much it takes, how long that lasts."""

import time
from datetime import UTC, datetime

import pytest

from libs.shared.clock import Clock
from libs.shared.ids import new_id
from libs.shared.timers import AT_ONCE, look_at_all
from services.scoring.touches.planning import PIECE, PLANNING, plan_changed_clients
from services.scoring.worker import TIMERS
from tests.scoring.conftest import NEW_YEAR, Scoring, closed

MONDAY = datetime(2025, 3, 3, 9, tzinfo=UTC)


async def test_the_planner_wakes_when_the_oldest_note_has_settled(scoring: Scoring) -> None:
    clock, pool = Clock(sandbox=False), scoring.database.pool
    await scoring.hears(closed(new_id()))

    async with pool.acquire() as connection:
        (unsettled,), _ = await look_at_all(connection, [PLANNING], clock)
        await pool.execute("UPDATE touch_changes SET changed_at = changed_at - interval '3 s'")
        (settled,), now = await look_at_all(connection, [PLANNING], clock)

    assert unsettled is None
    assert settled == AT_ONCE < now


async def test_all_timers_of_the_worker_are_looked_at_in_one_statement(scoring: Scoring) -> None:
    await scoring.hears(closed(new_id()))

    async with scoring.database.pool.acquire() as connection:
        due, now = await look_at_all(connection, TIMERS, Clock(sandbox=True))

    by_name = {timer.name: at for timer, at in zip(TIMERS, due, strict=True)}
    ageing = by_name.pop("ageing")
    assert ageing is not None
    assert NEW_YEAR < ageing < now  # the demo's year has long passed
    assert set(by_name.values()) == {None}


async def test_statistics_of_a_moment_without_notes_do_not_make_planning_slow(
    scoring: Scoring,
) -> None:
    pool = scoring.database.pool
    note = "INSERT INTO touch_changes (client_id) SELECT uuidv7() FROM generate_series(1, $1::int)"
    await pool.execute(note, 20_000)
    await pool.execute("DELETE FROM touch_changes WHERE id < (SELECT max(id) FROM touch_changes)")
    await pool.execute("VACUUM ANALYZE touch_changes")
    await pool.execute(note, 20_000)

    began = time.monotonic()
    async with scoring.database.transaction() as tx:
        planned = await plan_changed_clients(tx, MONDAY)

    assert planned == 2_000
    assert time.monotonic() - began < 1.5  # 5 s as a join


@pytest.mark.parametrize(
    ("waiting", "taken"), [(PIECE - 1, PIECE - 1), (PIECE + 1, PIECE), (3_000, 2_000)]
)
async def test_a_small_swarm_is_planned_in_pieces_and_a_large_one_in_batches(
    scoring: Scoring, waiting: int, taken: int
) -> None:
    note = "INSERT INTO touch_changes (client_id) SELECT uuidv7() FROM generate_series(1, $1::int)"
    await scoring.database.pool.execute(note, waiting)

    async with scoring.database.transaction() as tx:
        assert await plan_changed_clients(tx, MONDAY) == taken
