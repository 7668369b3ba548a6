"""Everybody scored again: under new rules, or from the bare purchases to prove the stream right.

Both work beside the stream, a few thousand clients in a transaction, and go on where they were
after a crash: the first because a client's row says under which version it was scored, the second
because the rescoring's row says how far it has come.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from libs.shared.database import Connection
from libs.shared.events import Event
from libs.shared.timers import Timer, due_column
from services.scoring.rules import Rules
from services.scoring.rules_in_force import rules_in_force
from services.scoring.score_keeping import add_ratings, load, say, store
from services.scoring.standing import Change, Standing

BATCH = 2000
LONG_AGO = datetime.min.replace(tzinfo=UTC)

_OUTDATED = """
    SELECT client_id FROM scores
    WHERE rule_version < (SELECT version FROM rule_sets WHERE status = 'active')
    LIMIT $1 FOR UPDATE SKIP LOCKED
"""

_HISTORY_FAULTS = """
    SELECT s.client_id FROM scores AS s LEFT JOIN (
        SELECT client_id, count(*) AS moves, max(seq) AS last_seq,
            (array_agg(new_segment ORDER BY seq DESC))[1] AS segment,
            bool_or(old_segment IS DISTINCT FROM before) AS is_broken
        FROM (
            SELECT *, lag(new_segment) OVER (PARTITION BY client_id ORDER BY seq) AS before
            FROM segment_history WHERE client_id = ANY($1::uuid[])
        ) AS chained GROUP BY client_id
    ) AS h USING (client_id)
    WHERE s.client_id = ANY($1::uuid[]) AND (
        coalesce(h.moves, 0) <> s.seq OR coalesce(h.last_seq, 0) <> s.seq
        OR h.segment IS DISTINCT FROM s.segment OR coalesce(h.is_broken, false))
"""


async def next_outdated(connection: Connection) -> datetime | None:
    """Long ago while there are clients scored under an older rule version; None otherwise."""
    found = await connection.fetchval(
        "SELECT 1 FROM scores WHERE rule_version <"
        " (SELECT version FROM rule_sets WHERE status = 'active') LIMIT 1"
    )
    return LONG_AGO if found else None


async def apply_new_rules(tx: Connection, now: datetime) -> int:
    """Score clients of an older rule version under the one in force; at most `BATCH`."""
    outdated = [row["client_id"] for row in await tx.fetch(_OUTDATED, BATCH)]
    if not outdated:
        return 0
    rules = await rules_in_force(tx)
    standings = await load(tx, outdated, rules)
    moves: list[tuple[Change, Event | None]] = []
    for standing in standings.values():
        moves += [(change, None) for change in standing.apply_rules(rules, at=now)]
    await store(tx, standings.values(), rules)
    await say(tx, moves)
    return len(outdated)


async def rescore(tx: Connection, now: datetime) -> int:
    """Compare a stretch of clients with what their purchases say, and mend what differs.

    Returns:
        1 while a rescoring was at work, 0 when none is due.
    """
    job = await tx.fetchrow(
        "SELECT * FROM rescorings WHERE due_at <= $1 ORDER BY due_at LIMIT 1"
        " FOR UPDATE SKIP LOCKED",
        now,
    )
    if job is None:
        return 0
    clients = await _next_clients(tx, job["after_client_id"])
    if not clients:
        await tx.execute(
            "UPDATE rescorings SET state = 'finished', due_at = NULL, finished_at = $2"
            " WHERE rescoring_id = $1",
            job["rescoring_id"],
            now,
        )
        return 1
    rules = await rules_in_force(tx)
    mismatches = await _compare(tx, clients, rules, now)
    faults = await tx.fetch(_HISTORY_FAULTS, clients)
    await tx.execute(
        "UPDATE rescorings SET after_client_id = $2, checked = checked + $3,"
        " mismatches = mismatches + $4, history_mismatches = history_mismatches + $5"
        " WHERE rescoring_id = $1",
        job["rescoring_id"],
        clients[-1],
        len(clients),
        mismatches,
        len(faults),
    )
    return 1


async def _next_clients(tx: Connection, after: UUID | None) -> list[UUID]:
    """Clients with a purchase or a score: one that should have a score but has none counts too."""
    rows: list[asyncpg.Record] = await tx.fetch(
        "SELECT client_id FROM ("
        " (SELECT client_id FROM scores WHERE $1::uuid IS NULL OR client_id > $1"
        "  ORDER BY client_id LIMIT $2) UNION"
        " (SELECT DISTINCT client_id FROM purchases WHERE $1::uuid IS NULL OR client_id > $1"
        "  ORDER BY client_id LIMIT $2)"
        ") AS clients ORDER BY client_id LIMIT $2",
        after,
        BATCH,
    )
    return [row["client_id"] for row in rows]


async def _compare(tx: Connection, clients: Sequence[UUID], rules: Rules, now: datetime) -> int:
    standings = await load(tx, clients, rules)
    await add_ratings(tx, standings)
    moves: list[tuple[Change, Event | None]] = []
    wrong = []
    outdated = []
    for standing in standings.values():
        if standing.rule_version and standing.rule_version != rules.version:
            moves += [(change, None) for change in standing.apply_rules(rules, at=now)]
            outdated.append(standing)
            continue
        stored = _facts(standing)
        due = standing.due_on is not None and standing.due_on <= rules.day_of(now)
        if not due:  # what is due will be aged by its timer: until then it holds as of its day
            standing.as_of = max(standing.as_of, rules.day_of(now))
        as_stored = standing.as_of
        changes = standing.recompute(rules, at=now)
        if _facts(standing) != stored:
            moves += [(change, None) for change in changes]
            standing.as_of = as_stored
            wrong.append(standing)
    await store(tx, wrong + outdated, rules)
    await say(tx, moves)
    return len(wrong)


def _facts(standing: Standing) -> tuple[object, ...]:
    figures = standing.figures
    return (
        standing.segment,
        standing.scores,
        standing.last_day,
        figures and (figures.frequency, figures.monetary_minor),
        standing.due_on,
    )


NEW_RULES = Timer("new_rules", next_outdated, apply_new_rules)
RESCORING = Timer("rescoring", due_column("rescorings"), rescore)
