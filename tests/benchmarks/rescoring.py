"""New rules for a million clients beside the least SQL that does it, and a preview of them.

The floor is performance.md's section 5: per-client aggregates in a table of their own, thresholds
by percentile_disc, ratings by width_bucket, UPDATE of the rows that differ and a row in an outbox
for each segment that does, all in one statement. It does not: know due days, working days or
returns, keep a history, number a client's moves, tell why and under which rules, leave the rows to
others meanwhile, or go on after a crash. Ours is what the worker runs, from the activation until
everybody is rated. One client in a hundred has bought since the quintiles were taken.
"""

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg

from libs.shared.database import SERVER_SETTINGS, Connection, Database
from services.scoring.preview import preview
from services.scoring.rescoring import rescore
from services.scoring.rule_change import apply_new_rules
from tests.benchmarks.base import QUINTILES, activated, scored_base
from tests.benchmarks.figures import Figure
from tests.benchmarks.servers import Servers

ROUNDS = 3
TOUCHED = 0.01
PREVIEW_SECONDS = 5.0

_FLOOR = """
    CREATE TABLE floor AS SELECT client_id, current_date - last_day AS recency, frequency,
        monetary_minor, recency_score, frequency_score, monetary_score, segment FROM scores;
    ALTER TABLE floor ADD PRIMARY KEY (client_id);
    CREATE TABLE floor_outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        topic text NOT NULL, key text NOT NULL, data bytea NOT NULL);
    CREATE TABLE names AS SELECT r, f, m, min(segment) AS segment FROM (
        SELECT recency_score AS r, frequency_score AS f, monetary_score AS m, segment FROM scores
    ) AS s GROUP BY r, f, m;
"""
_TOUCH_FLOOR = """
    UPDATE floor SET recency = 0, frequency = frequency + 1, monetary_minor = monetary_minor + $2
    WHERE client_id = ANY($1::uuid[])
"""
_RESCORE_FLOOR = """
    WITH cuts AS (
        SELECT percentile_disc(ARRAY[.2, .4, .6, .8]) WITHIN GROUP (ORDER BY recency) AS r,
            percentile_disc(ARRAY[.2, .4, .6, .8]) WITHIN GROUP (ORDER BY frequency) AS f,
            percentile_disc(ARRAY[.2, .4, .6, .8]) WITHIN GROUP (ORDER BY monetary_minor) AS m
        FROM floor
    ), rated AS (
        SELECT client_id, floor.segment AS before, 5 - width_bucket(recency - 1, cuts.r) AS r,
            1 + width_bucket(frequency - 1, cuts.f) AS f,
            1 + width_bucket(monetary_minor - 100, cuts.m) AS m
        FROM floor CROSS JOIN cuts
    ), named AS (SELECT rated.*, names.segment FROM rated LEFT JOIN names USING (r, f, m)),
    written AS (
        UPDATE floor SET recency_score = n.r, frequency_score = n.f, monetary_score = n.m,
            segment = n.segment
        FROM named AS n WHERE n.client_id = floor.client_id
            AND (floor.recency_score, floor.frequency_score, floor.monetary_score, floor.segment)
                IS DISTINCT FROM (n.r, n.f, n.m, n.segment)
        RETURNING floor.client_id, n.before, floor.segment, n.r, n.f, n.m
    )
    INSERT INTO floor_outbox (topic, key, data)
    SELECT 'segments', client_id, convert_to(json_build_object('client_id', client_id,
        'old_segment', before, 'new_segment', segment, 'recency_score', r, 'frequency_score', f,
        'monetary_score', m)::text, 'UTF8')
    FROM written WHERE before IS DISTINCT FROM segment
"""


async def measure(servers: Servers) -> list[Figure]:
    url = await scored_base(servers, "bench_rescoring")
    pairs, previews = [], []
    connection = await asyncpg.connect(url, server_settings=SERVER_SETTINGS)
    async with Database.open(url, name="bench", pool_size=4) as database:
        await connection.execute(_FLOOR)
        await connection.execute("VACUUM ANALYZE floor")
        for number in range(ROUNDS + 1):
            await connection.execute(_TOUCH_FLOOR, await touch(connection, number), 500_000)
            previews.append(await _preview(database))
            await connection.execute("CHECKPOINT")
            floor, changed = await _floor(connection)
            await connection.execute("CHECKPOINT")
            ours, moved = await _ours(database)
            pairs.append((floor, ours))
            if abs(changed - moved) > changed / 100:
                raise RuntimeError(f"{changed} events of the floor, {moved} of ours")
        await _demand_right(database)
    await connection.close()
    return [
        # The first round warms up.
        Figure.of("rescoring", "s", pairs[1:], bar=1.3, aim=0.8, low_is_good=True),
        Figure.of(
            "preview",
            "s",
            [(PREVIEW_SECONDS, seconds) for seconds in previews[1:]],
            bar=1.0,
            low_is_good=True,
        ),
    ]


async def touch(connection: Connection, number: int) -> list[UUID]:
    """One client in a hundred buys today; who it was."""
    clients = [
        row[0]
        for row in await connection.fetch(
            "SELECT client_id FROM scores WHERE hashtext(client_id::text) % 100 = $1"
            " AND last_day < as_of",
            number,
        )
    ]
    await connection.execute(
        "UPDATE scores SET last_day = as_of, frequency = frequency + 1,"
        " monetary_minor = monetary_minor + $2, oldest_day = coalesce(oldest_day, as_of)"
        " WHERE client_id = ANY($1::uuid[])",
        clients,
        500_000,
    )
    await connection.execute(
        "INSERT INTO purchases (deal_id, client_id, day, closed_at, amount_minor, currency)"
        " SELECT gen_random_uuid(), client_id, as_of, now(), $2, 'RUB' FROM scores"
        " WHERE client_id = ANY($1::uuid[])",
        clients,
        500_000,
    )
    return clients


async def _preview(database: Database) -> float:
    began = time.perf_counter()
    async with (
        database.pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await preview(connection, QUINTILES, now=datetime.now(UTC))
    return time.perf_counter() - began


async def _floor(connection: asyncpg.Connection) -> tuple[float, int]:
    began = time.perf_counter()
    done = await connection.execute(_RESCORE_FLOOR)
    return time.perf_counter() - began, int(done.split()[-1])


async def _ours(database: Database) -> tuple[float, int]:
    began = time.perf_counter()
    now = datetime.now(UTC)
    version = await activated(database, QUINTILES, now)
    while True:
        async with database.transaction() as tx:
            if not await apply_new_rules(tx, now):
                break
    seconds = time.perf_counter() - began
    change = await database.pool.fetchrow("SELECT * FROM rule_changes WHERE version = $1", version)
    assert change is not None
    if change["state"] not in ("boundaries", "finished"):
        raise RuntimeError(f"the change is {change['state']}")
    return seconds, change["moved"]


async def _demand_right(database: Database) -> None:
    """Everybody as the purchases say, or the speed is worth nothing."""
    now = datetime.now(UTC) + timedelta(seconds=1)
    while await database.pool.fetchval("SELECT 1 FROM rule_changes WHERE due_at IS NOT NULL"):
        async with database.transaction() as tx:
            await apply_new_rules(tx, now)
    await database.pool.execute(
        "INSERT INTO rescorings (rescoring_id, state, requested_at, requested_by, due_at)"
        " VALUES (gen_random_uuid(), 'running', $1, 'bench', $1)",
        now,
    )
    fired = 1
    while fired:
        async with database.transaction() as tx:
            fired = await rescore(tx, now)
    row = await database.pool.fetchrow("SELECT * FROM rescorings")
    if row is None or row["mismatches"] or row["history_mismatches"]:
        raise RuntimeError(f"not right: {row}")
