"""The base's model of buying and spending: fitted when asked for and every so often from then on.

Fitting takes seconds of computing, so it happens in a process of its own: the worker's loop goes on
hearing purchases meanwhile. A worker that dies while fitting leaves the fit due an hour later. Each
model is a version that stays; what is told of a client names the version it comes from.
"""

import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from typing import Annotated, Any

import asyncpg
import structlog
from pydantic import Field

from libs.shared.clock import Clock
from libs.shared.database import Connection, Database, is_transient
from libs.shared.policies import Policy, current
from services.scoring.rules import Rules
from services.scoring.rules_in_force import rules_seen

log = structlog.get_logger()

LOOK_SECONDS = 1.0
LEASE = timedelta(hours=1)
AGAIN = timedelta(days=1)  # after an attempt that gave no model

Row = tuple[float, float, float, float]
"""Repeat purchase days, week of the last, weeks known, mean spend in major units."""

# Every client's purchase days over all time; what was wholly returned never happened.
_HISTORIES = """
    SELECT (count(*) - 1)::float8, (max(day) - min(day)) / 7.0::float8,
        greatest($1::date - min(day), 0) / 7.0::float8, CASE WHEN count(*) > 1 THEN
            ((sum(value_minor) - (array_agg(value_minor ORDER BY day))[1])
                / (count(*) - 1) / 100)::float8 ELSE 0 END
    FROM (
        SELECT client_id, day, sum(round((amount_minor - returned_minor) * rate)) AS value_minor
        FROM purchases JOIN unnest($2::text[], $3::numeric[]) AS r (currency, rate) USING (currency)
        WHERE NOT is_returned AND day <= $1::date AND client_id IN ({whose})
        GROUP BY client_id, day
    ) AS days GROUP BY client_id
"""
_SAMPLE = "SELECT client_id FROM scores TABLESAMPLE BERNOULLI ($4) REPEATABLE (1)"


class ValueModelPolicy(Policy, name="value-model"):
    """How the model of clients' value is kept."""

    refit_every_days: Annotated[int, Field(strict=True, ge=1, le=366)] = 30
    # More clients make the figures no better, only the fit longer.
    most_clients: Annotated[int, Field(strict=True, ge=100, le=1_000_000)] = 50_000
    horizon_days: Annotated[int, Field(strict=True, ge=7, le=3660)] = 365


async def history_of(
    connection: Connection, client_id: Any, rules: Rules, now: datetime
) -> Row | None:
    """What the model needs to know of a client; None: has bought nothing."""
    rows = await _histories(connection, rules, now, "$4::uuid", client_id)
    return rows[0] if rows else None


async def _histories(
    connection: Connection, rules: Rules, now: datetime, whose: str, value: object
) -> list[Row]:
    rates = list(rules.rates), list(rules.rates.values())
    statement = _HISTORIES.format(whose=whose)
    rows = await connection.fetch(statement, rules.day_of(now), *rates, value)
    return [(row[0], row[1], row[2], row[3]) for row in rows]


async def newest_model(connection: Connection) -> asyncpg.Record | None:
    """The version in use."""
    return await connection.fetchrow("SELECT * FROM value_models ORDER BY version DESC LIMIT 1")


async def fit_if_due(database: Database, now: datetime) -> bool:
    """Fit a model if one is due; whether an attempt was made."""
    claimed = await database.pool.fetchval(
        "UPDATE value_fitting SET due_at = $1 + $2::interval WHERE due_at <= $1 RETURNING true",
        now,
        LEASE,
    )
    if not claimed:
        return False
    async with database.pool.acquire() as connection:
        policy = (await current(connection, ValueModelPolicy)).body
        rules = await rules_seen(connection)
        known = await connection.fetchval("SELECT count(*) FROM scores")
        share = min(100.0, 100.0 * policy.most_clients / max(known, 1))
        rows = await _histories(connection, rules, now, _SAMPLE, share)
    found = await _in_a_process(rows)
    async with database.transaction() as tx:
        if isinstance(found, str):
            log.warning("value_model_not_fitted", problem=found)
            await _next_fit(tx, now + AGAIN, found)
            return True
        await tx.execute(
            "INSERT INTO value_models (fitted_at, clients, currency, model, log_likelihood)"
            " VALUES ($1, $2, $3, $4, $5)",
            now,
            len(rows),
            rules.rule_set.reporting_currency,
            found["model"],
            found["log_likelihood"],
        )
        await _next_fit(tx, now + timedelta(days=policy.refit_every_days), None)
    return True


async def _next_fit(tx: Connection, due_at: datetime, problem: str | None) -> None:
    await tx.execute("UPDATE value_fitting SET due_at = $1, problem = $2", due_at, problem)


async def _in_a_process(rows: Sequence[Row]) -> dict[str, Any] | str:
    if not any(row[0] for row in rows):
        return "nobody has bought on a second day"
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawning) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, fit_model, list(rows))


def fit_model(rows: list[Row]) -> dict[str, Any] | str:
    """The model of these histories, or why there is none. Imports what the worker need not load."""
    import numpy as np

    from services.scoring import buy_till_you_die as btyd

    x, last, weeks, spend = np.array(rows, dtype=np.float64).T
    same, counts = np.unique(np.stack([x, last, weeks]), axis=1, return_counts=True)
    try:
        bg, likelihood = btyd.fit_bg_nbd(same[0], same[1], same[2], counts.astype(np.float64))
        gg = btyd.fit_gamma_gamma(x, spend, np.ones(len(rows)))
    except btyd.NotFitted as error:
        return str(error)
    return {
        "model": {
            "r": bg.r,
            "alpha": bg.alpha,
            "a": bg.a,
            "b": bg.b,
            "p": gg.p,
            "q": gg.q,
            "gamma": gg.gamma,
        },
        "log_likelihood": likelihood,
    }


async def fit_value_models(database: Database, clock: Clock) -> None:
    """Look for a due fit for ever."""
    while True:
        try:
            await fit_if_due(database, clock.now())
        except Exception as error:
            if not is_transient(error):
                raise
        await asyncio.sleep(LOOK_SECONDS)
