"""Everybody rated under a rule set that was put in force, beside the stream.

Clients are rated in stretches of their ids, in SQL (`rating_in_sql.py`); only those whose ratings,
segment or next boundary become other are locked and written, and only those who move are said. The
work remembers how far it has come, so a crash goes on where it was.

It begins when nobody is left who may still know the rules before: the first firing notes the
transactions under way, and nothing is rated until they have ended. Whoever begins later sets its
mark in the database before it reads the rules (the inbox its position, a timer its due rows), so it
knows the new ones, and what it writes while we pass needs no second look.

A boundary that moves away from a client is not written: the timer fires as it would have, finds
nothing to do and notes the later one. One that comes nearer has to be, which may be nearly
everybody's where a recency bound moves by a day. Those of the next two days are written at once,
with the ratings; the others at leisure when everybody is rated.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from libs.shared.database import Connection
from libs.shared.events import Event
from libs.shared.timers import Timer, due_column
from services.scoring.rating_in_sql import (
    FIRST,
    Rating,
    clients_in,
    end_of_stretch,
    join_by_hash,
    look_up_by_key,
)
from services.scoring.rfm import Scores
from services.scoring.rules import Rules
from services.scoring.rules_in_force import rules_in_force
from services.scoring.score_keeping import keep, load
from services.scoring.segment_moves import say
from services.scoring.standing import Change
from services.scoring.touches.changes import note_changed_clients
from services.scoring.touches.planning import plan_everybody

STRETCH = 40_000
LEISURE_STRETCH = 5_000
SOON_DAYS = 2
COUNTED_STRETCH = 2_000  # locked as a whole while their purchases are read

_UNDER_WAY = """
    SELECT coalesce(array_agg(l.transactionid::text), '{}') FROM pg_locks AS l
    JOIN pg_stat_activity AS a USING (pid)
    WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
        AND a.datname = current_database() AND pid <> pg_backend_pid()
"""
_STILL_UNDER_WAY = """
    SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND granted
        AND mode = 'ExclusiveLock' AND transactionid::text = ANY($1::text[]))
"""
# Asked only of those whose ratings stay, so the stored ones do as well as the new ones, which would
# have to be found again for each use. Of all that makes a boundary only the recency bound is the
# rules'; the rest is of one basis, and no stored boundary is later than that.
_COMES_NEARER = """
    OR (due_at IS NULL AND due_on IS NOT NULL)
    OR ({soon} {bound} < (due_at AT TIME ZONE {zone})::date)
"""
_NEXT_BOUND = "last_day + {recency_bounds}[6 - recency_score]"
_APPLY = """
    WITH changed AS MATERIALIZED (
        SELECT rated.*, {midnight} AS new_due_at FROM ({rated}) AS rated
        WHERE recency_rating <> recency_score OR frequency_rating <> frequency_score
            OR monetary_rating <> monetary_score OR segment IS NULL {or_else}
        ORDER BY client_id {lock}
    ), written AS (
        UPDATE scores AS s SET segment = c.new_segment, recency_score = c.recency_rating,
            frequency_score = c.frequency_rating, monetary_score = c.monetary_rating,
            last_day = c.last_day, oldest_day = c.oldest_day, frequency = c.frequency,
            monetary_minor = c.monetary_minor, monthly_run = c.monthly_run, as_of = c.on_day,
            due_at = c.new_due_at, rule_version = {version},
            seq = c.seq + (c.segment IS DISTINCT FROM c.new_segment)::int
        FROM changed AS c WHERE s.client_id = c.client_id {stretch}
    )
    SELECT client_id, seq + 1, segment, new_segment, recency_rating, frequency_rating,
        monetary_rating, on_day
    FROM changed WHERE segment IS DISTINCT FROM new_segment
"""


async def apply_new_rules(tx: Connection, now: datetime) -> int:
    """Rate the next stretch of clients under the rules in force.

    Returns:
        1 while there is more to do at once; 0 when there is nothing, or it can wait a moment.
    """
    change = await tx.fetchrow(
        "SELECT * FROM rule_changes WHERE due_at <= $1 ORDER BY version LIMIT 1"
        " FOR UPDATE SKIP LOCKED",
        now,
    )
    if change is None:
        return 0
    rules = await rules_in_force(tx)
    if change["version"] != rules.version:
        await _end(tx, change, "superseded", now)
        return 1
    if change["fence"] is None:
        await tx.execute(
            "UPDATE rule_changes SET fence = $2, state = 'running' WHERE version = $1",
            rules.version,
            await tx.fetchval(_UNDER_WAY),
        )
        return 1
    after = change["after_client_id"] or FIRST
    if not change["checked"] and await tx.fetchval(_STILL_UNDER_WAY, change["fence"]):
        return 0
    upto = await end_of_stretch(tx, after, _length(change))
    moved = await _rate_stretch(tx, change, rules, after, upto, now)
    await tx.execute(
        "UPDATE rule_changes SET after_client_id = $2, checked = checked + $3, moved = moved + $4"
        " WHERE version = $1",
        rules.version,
        upto,
        await _checked(tx, change, after, upto),
        moved,
    )
    if upto is None:
        await _end_pass(tx, change, now)
    return 0 if change["state"] == "boundaries" else 1


async def _checked(tx: Connection, change: asyncpg.Record, after: UUID, upto: UUID | None) -> int:
    if change["state"] == "boundaries":
        return 0
    return _length(change) if upto else await clients_in(tx, after, None)


def _length(change: asyncpg.Record) -> int:
    if change["state"] == "boundaries":
        return LEISURE_STRETCH
    return COUNTED_STRETCH if change["counts_anew"] else STRETCH


async def _end_pass(tx: Connection, change: asyncpg.Record, now: datetime) -> None:
    """Everybody is rated, or had their boundaries written too."""
    if change["state"] != "boundaries":
        await plan_everybody(tx, change["version"], now)
    if change["state"] == "boundaries" or change["counts_anew"] or not change["comes_nearer"]:
        await _end(tx, change, "finished", now)
        return
    await tx.execute(
        "UPDATE rule_changes SET state = 'boundaries', rated_at = $2 WHERE version = $1",
        change["version"],
        now,
    )


async def _end(tx: Connection, change: asyncpg.Record, state: str, now: datetime) -> None:
    await tx.execute(
        "UPDATE rule_changes SET state = $2, due_at = NULL, finished_at = $3,"
        " rated_at = coalesce(rated_at, $3) WHERE version = $1",
        change["version"],
        state,
        now,
    )


async def _rate_stretch(
    tx: Connection,
    change: asyncpg.Record,
    rules: Rules,
    after: UUID,
    upto: UUID | None,
    now: datetime,
) -> int:
    """Rate the clients behind `after`, up to and including `upto`; how many moved."""
    await (join_by_hash if change["counts_anew"] else look_up_by_key)(tx)
    rating = Rating(rules, rules.day_of(now))
    stretch = f"client_id > {rating.add(after, 'uuid')}"
    if upto is not None:
        stretch += f" AND client_id <= {rating.add(upto, 'uuid')}"
    if change["counts_anew"]:
        await tx.execute(
            f"SELECT FROM scores WHERE {stretch} ORDER BY client_id FOR UPDATE", *rating.values
        )
    late = await tx.fetch(
        "SELECT client_id FROM scores WHERE due_at <= $1 AND client_id > $2"
        " AND ($3::uuid IS NULL OR client_id <= $3)",
        now,
        after,
        upto,
    )
    is_punctual = f"(due_at IS NULL OR due_at > {rating.add(now, 'timestamptz')})"
    statement = _statement(rating, change, f"{stretch} AND {is_punctual}", stretch)
    moves: list[tuple[Change, Event | None]] = []
    for client_id, seq, old, new, recency, frequency, monetary, as_of in await tx.fetch(
        statement, *rating.values
    ):
        scores = Scores(recency, frequency, monetary)
        move = Change(client_id, seq, old, new, scores, rules.version, as_of, now, "rules")
        moves.append((move, None))
    await say(tx, moves)
    await note_changed_clients(tx, [move.client_id for move, _ in moves])
    return len(moves) + await _apply_to_late(tx, [row[0] for row in late], rules, now)


def _statement(rating: Rating, change: asyncpg.Record, which: str, stretch: str) -> str:
    counts_anew = change["counts_anew"]
    or_else = "OR new_segment <> segment" if change["renames"] else ""
    if counts_anew:
        or_else = "OR true"
    elif change["comes_nearer"]:
        bound = _NEXT_BOUND.format(recency_bounds=rating["recency_bounds"])
        soon = f"{bound} <= {rating['today']} + {SOON_DAYS} AND"
        or_else += _COMES_NEARER.format(
            bound=bound, zone=rating["zone"], soon="" if change["state"] == "boundaries" else soon
        )
    figures = rating.counted(which, stretch) if counts_anew else rating.stored(which)
    return _APPLY.format(
        rated=rating.rated(figures),
        midnight=rating.midnight("due_on"),
        version=rating.add(rating.rules.version, "int"),
        # Where rows are joined by hash, the whole table would be read to find those of a stretch.
        stretch=f"AND {stretch.replace('client_id', 's.client_id')}" if counts_anew else "",
        or_else=or_else,
        lock="" if counts_anew else "FOR UPDATE",
    )


async def _apply_to_late(
    tx: Connection, clients: Sequence[UUID], rules: Rules, now: datetime
) -> int:
    """Those whose boundary has passed and whose timer has not fired yet: they age first."""
    if not clients:
        return 0
    standings = await load(tx, clients, rules)
    moves: list[tuple[Change, Event | None]] = []
    for standing in standings.values():
        moves += [(change, None) for change in standing.apply_rules(rules, at=now)]
    await keep(tx, standings.values(), moves, rules)
    return len(moves)


NEW_RULES = Timer("new_rules", due_column("rule_changes"), apply_new_rules)
