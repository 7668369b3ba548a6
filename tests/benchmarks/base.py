"""A company's whole base: a million clients with ten million purchases, scored by quintiles.

Made by SQL from a seed, so it is the same in each run. Some buy often, some stopped long ago; ids
come in the order in which clients came. `BAZA_BENCH_CLIENTS` makes a smaller one.
"""

import os
from datetime import UTC, datetime

import asyncpg

from libs.shared import migrations
from libs.shared.database import Database
from services.scoring.activation import activate
from services.scoring.presets import DEFAULT_RULE_SET
from services.scoring.rating_in_sql import Rating
from services.scoring.rules import Rules, RuleSet
from services.scoring.rules_in_force import draft, prepared
from tests.benchmarks.servers import Servers, new_database

CLIENTS = int(os.environ.get("BAZA_BENCH_CLIENTS", "1000000"))
PURCHASES = 10  # of a client, on average
DAYS = 700  # the oldest purchase
QUINTILES = DEFAULT_RULE_SET.model_copy(update={"method": "quintile"})

_TEMPLATE = "bench_base"
_made: set[str] = set()

_FILL = """
    SELECT setseed(0.5);
    CREATE TEMPORARY TABLE buyers AS SELECT
        (lpad(to_hex(1700000000000 + n * 50), 12, '0') || '7' || lpad(to_hex(n % 4096), 3, '0')
            || '8' || substr(md5(n::text), 1, 15))::uuid AS client_id,
        1 + floor(-ln(1 - random()) * ({purchases} - 0.5))::int AS wanted,
        floor(random() ^ 2 * {days})::int AS quiet, exp(random() * 6) AS purse
        FROM generate_series(1, {clients}) AS n;
    ALTER TABLE purchases DROP CONSTRAINT purchases_pkey;
    DROP INDEX ix_purchases_client_id;
    INSERT INTO purchases (deal_id, client_id, day, closed_at, amount_minor, currency)
    SELECT gen_random_uuid(), client_id, day, day + interval '9 hours',
        1000 + (purse * 1000 * random())::bigint, 'RUB'
    FROM (
        SELECT client_id, purse, '{today}'::date - quiet
            - floor(random() * ({days} - quiet))::int * (n > 1)::int AS day
        FROM buyers CROSS JOIN LATERAL generate_series(1, wanted) AS n
    ) AS bought;
    ALTER TABLE purchases ADD PRIMARY KEY (deal_id);
    CREATE INDEX ix_purchases_client_id ON purchases (client_id, day)
        INCLUDE (amount_minor, returned_minor, currency, is_returned);
    INSERT INTO scores (client_id, as_of, rule_version)
        SELECT client_id, '{today}', 1 FROM buyers ORDER BY client_id;
    DROP TABLE buyers;
"""
_SCORE = """
    UPDATE scores AS s SET segment = r.new_segment, recency_score = r.recency_rating,
        frequency_score = r.frequency_rating, monetary_score = r.monetary_rating,
        last_day = r.last_day, oldest_day = r.oldest_day, frequency = r.frequency,
        monetary_minor = r.monetary_minor, due_at = {midnight}, seq = 1
    FROM ({rated}) AS r WHERE r.client_id = s.client_id
"""
_HISTORY = """
    INSERT INTO segment_history SELECT client_id, 1, NULL, segment, recency_score, frequency_score,
        monetary_score, rule_version, as_of, now(), 'purchase' FROM scores
"""


async def scored_base(servers: Servers, name: str) -> str:
    """URL of a database of scoring with the base in it, under quintile rules."""
    if not _made:
        url = await new_database(servers.postgres, _TEMPLATE)
        await migrations.upgrade("scoring", url)
        await _fill(url, datetime.now(UTC))
        _made.add(url)
    return await new_database(servers.postgres, name, template=_TEMPLATE)


async def _fill(url: str, now: datetime) -> None:
    async with Database.open(url, name="bench", pool_size=1) as database:
        async with database.session() as session:
            rules = await prepared(session)
        connection = await asyncpg.connect(url)
        numbers = {"clients": CLIENTS, "purchases": PURCHASES, "days": DAYS}
        await connection.execute(_FILL.format(today=rules.day_of(now), **numbers))
        await connection.execute("VACUUM ANALYZE purchases")
        await _score(connection, rules, now)
        await activated(database, QUINTILES, now)
        await connection.execute("UPDATE rule_changes SET due_at = NULL, state = 'finished'")
        async with database.session() as session:
            rules = await prepared(session)
        await _score(connection, rules, now, counted=False)
        await connection.execute(_HISTORY)
        await connection.execute("VACUUM FULL scores")
        await connection.execute("DELETE FROM outbox")
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
        await connection.close()


async def _score(
    connection: asyncpg.Connection, rules: Rules, now: datetime, *, counted: bool = True
) -> None:
    rating = Rating(rules, rules.day_of(now))
    rated = rating.rated(rating.counted() if counted else rating.stored())
    midnight = rating.midnight("r.due_on")
    await connection.execute(
        _SCORE.format(rated=rated, midnight=midnight), *rating.values, timeout=600
    )


async def activated(database: Database, rule_set: RuleSet, now: datetime) -> int:
    """Draft a rule set and put it in force; its version."""
    async with database.session() as session:
        await prepared(session)
        version = (await draft(session, rule_set, by="bench", now=now)).version
    async with database.session() as session:
        await activate(session, version, by="bench", now=now)
    return version
