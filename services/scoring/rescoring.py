"""Everybody scored again from the bare purchases, to prove the stream right.

It works beside the stream. A stretch of clients is counted and rated in SQL, of one state of the
database, and compared with what is stored; whoever differs is locked, computed by the standing's
own arithmetic, mended and counted as a mismatch. The rescoring's row says how far it has come, so a
crash goes on where it was. While a change of rules is under way it waits.
"""

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

from libs.shared.database import Connection
from libs.shared.events import Event
from libs.shared.timers import Timer, due_column
from services.scoring.rating_in_sql import FIRST, Rating, clients_in, end_of_stretch, join_by_hash
from services.scoring.rules import Rules
from services.scoring.rules_in_force import rules_in_force
from services.scoring.score_keeping import add_ratings, keep, load
from services.scoring.standing import Change, Standing

STRETCH = 5_000

# Who has purchases and no score, or a score and no purchase, is suspect too.
_SUSPECTS = """
    WITH rated AS MATERIALIZED (SELECT *, {midnight} AS new_due_at FROM ({rated}) AS rated)
    SELECT client_id FROM rated JOIN scores AS s USING (client_id)
    WHERE (s.segment, s.recency_score, s.frequency_score, s.monetary_score, s.last_day,
            s.oldest_day, s.frequency, s.monetary_minor, s.monthly_run)
        IS DISTINCT FROM (new_segment, recency_rating, frequency_rating, monetary_rating,
            rated.last_day, rated.oldest_day, rated.frequency, rated.monetary_minor,
            rated.monthly_run)
        OR new_due_at < s.due_at OR (s.due_at IS NULL AND new_due_at IS NOT NULL)
    UNION
    SELECT client_id FROM scores WHERE {stretch} AND last_day IS NOT NULL
        AND client_id NOT IN (SELECT client_id FROM rated)
    UNION
    SELECT client_id FROM purchases WHERE {stretch} AND NOT is_returned
        AND client_id NOT IN (SELECT client_id FROM rated)
"""

_HISTORY_FAULTS = """
    SELECT count(*) FROM scores AS s LEFT JOIN (
        SELECT client_id, count(*) AS moves, max(seq) AS last_seq,
            (array_agg(new_segment ORDER BY seq DESC))[1] AS segment,
            bool_or(old_segment IS DISTINCT FROM before) AS is_broken
        FROM (
            SELECT *, lag(new_segment) OVER (PARTITION BY client_id ORDER BY seq) AS before
            FROM segment_history WHERE client_id > $1 AND ($2::uuid IS NULL OR client_id <= $2)
        ) AS chained GROUP BY client_id
    ) AS h USING (client_id)
    WHERE s.client_id > $1 AND ($2::uuid IS NULL OR s.client_id <= $2) AND (
        coalesce(h.moves, 0) <> s.seq OR coalesce(h.last_seq, 0) <> s.seq
        OR h.segment IS DISTINCT FROM s.segment OR coalesce(h.is_broken, false))
"""


async def rescore(tx: Connection, now: datetime) -> int:
    """Compare a stretch of clients with what their purchases say, and mend what differs.

    Returns:
        1 while a rescoring was at work, 0 when none is due or a change of rules is under way.
    """
    job = await tx.fetchrow(
        "SELECT * FROM rescorings WHERE due_at <= $1 ORDER BY due_at LIMIT 1"
        " FOR UPDATE SKIP LOCKED",
        now,
    )
    if job is None or await tx.fetchval("SELECT 1 FROM rule_changes WHERE due_at IS NOT NULL"):
        return 0
    after = job["after_client_id"] or FIRST
    # The last stretch has no end: purchases of clients without a score may lie there.
    upto = await end_of_stretch(tx, after, STRETCH)
    rules = await rules_in_force(tx)
    await join_by_hash(tx)
    suspects = await _suspects(tx, rules, after, upto, now)
    mismatches = await _compare(tx, suspects, rules, now) if suspects else 0
    faults = await tx.fetchval(_HISTORY_FAULTS, after, upto)
    await tx.execute(
        "UPDATE rescorings SET after_client_id = coalesce($2, after_client_id),"
        " checked = checked + $3, mismatches = mismatches + $4,"
        " history_mismatches = history_mismatches + $5 WHERE rescoring_id = $1",
        job["rescoring_id"],
        upto,
        await clients_in(tx, after, upto),
        mismatches,
        faults,
    )
    if upto is None:
        await tx.execute(
            "UPDATE rescorings SET state = 'finished', due_at = NULL, finished_at = $2"
            " WHERE rescoring_id = $1",
            job["rescoring_id"],
            now,
        )
    return 1


async def _suspects(
    tx: Connection, rules: Rules, after: UUID, upto: UUID | None, now: datetime
) -> list[UUID]:
    rating = Rating(rules, rules.day_of(now))
    stretch = f"client_id > {rating.add(after, 'uuid')}"
    if upto is not None:
        stretch += f" AND client_id <= {rating.add(upto, 'uuid')}"
    # What is due will be aged by its timer: until then it holds as of its day.
    is_late = f"s.due_at <= {rating.add(now, 'timestamptz')}"
    on_day = f"CASE WHEN {is_late} THEN s.as_of ELSE greatest(s.as_of, {rating['today']}) END"
    statement = _SUSPECTS.format(
        rated=rating.rated(rating.counted(stretch, stretch, on_day)),
        midnight=rating.midnight("due_on"),
        stretch=stretch,
    )
    return [row[0] for row in await tx.fetch(statement, *rating.values)]


async def _compare(tx: Connection, clients: Sequence[UUID], rules: Rules, now: datetime) -> int:
    standings = await load(tx, clients, rules)
    await add_ratings(tx, standings)
    moves: list[tuple[Change, Event | None]] = []
    wrong = []
    for standing in standings.values():
        stored, due_on = _facts(standing), standing.due_on
        if due_on is None or due_on > rules.day_of(now):
            standing.as_of = max(standing.as_of, rules.day_of(now))
        as_stored = standing.as_of
        changes = standing.recompute(rules, at=now)
        if _facts(standing) != stored or _is_too_late(due_on, standing.due_on):
            moves += [(change, None) for change in changes]
            standing.as_of = as_stored
            wrong.append(standing)
    await keep(tx, wrong, moves, rules)
    return len(wrong)


def _is_too_late(stored: date | None, due_on: date | None) -> bool:
    """A timer may fire before the boundary, which does no harm, but never after it."""
    return due_on is not None and (stored is None or stored > due_on)


def _facts(standing: Standing) -> tuple[object, ...]:
    figures = standing.figures
    return (
        standing.segment,
        standing.scores,
        standing.last_day,
        standing.oldest_day,
        standing.monthly_run,
        figures and (figures.frequency, figures.monetary_minor),
    )


RESCORING = Timer("rescoring", due_column("rescorings"), rescore)
