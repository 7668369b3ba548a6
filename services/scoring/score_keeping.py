"""Loading clients' standings, and storing what became of them, thousands at a time.

Whoever changes a standing loads it here first, which locks its row; what is stored goes out with
its segment.changed events in the same transaction. Rows are always locked in the order of their
ids, so that two batches cannot wait for each other.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from libs.shared import outbox
from libs.shared.bulk import append
from libs.shared.database import Connection
from libs.shared.events import Event, SegmentChanged
from libs.shared.ids import quick
from services.scoring.rfm import Figures, Scores
from services.scoring.rules import Rules
from services.scoring.standing import Change, Day, Standing

_LOCK = """
    SELECT client_id, seq, segment, as_of, rule_version, last_day, due_at, recency_score,
        frequency_score, monetary_score, frequency, monetary_minor
    FROM scores WHERE client_id = ANY($1::uuid[]) ORDER BY client_id FOR UPDATE
"""

_DAYS = """
    SELECT client_id, day, count(*) AS purchases,
        sum(round((amount_minor - returned_minor) * rate))::bigint AS value_minor
    FROM purchases JOIN unnest($2::text[], $3::numeric[]) AS r (currency, rate) USING (currency)
    WHERE client_id = ANY($1::uuid[]) AND NOT is_returned GROUP BY client_id, day
"""
_DAYS_IN_ONE_CURRENCY = """
    SELECT client_id, day, count(*) AS purchases,
        sum(amount_minor - returned_minor)::bigint AS value_minor
    FROM purchases WHERE client_id = ANY($1::uuid[]) AND NOT is_returned
    GROUP BY client_id, day
"""

_STORE = """
    INSERT INTO scores (client_id, seq, segment, recency_score, frequency_score, monetary_score,
        last_day, frequency, monetary_minor, as_of, rule_version, due_at)
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::smallint[], $5::smallint[],
        $6::smallint[], $7::date[], $8::int[], $9::bigint[], $10::date[], $11::int[],
        $12::timestamptz[])
    ON CONFLICT (client_id) DO UPDATE SET
        (seq, segment, recency_score, frequency_score, monetary_score, last_day, frequency,
         monetary_minor, as_of, rule_version, due_at)
        = (excluded.seq, excluded.segment, excluded.recency_score, excluded.frequency_score,
           excluded.monetary_score, excluded.last_day, excluded.frequency,
           excluded.monetary_minor, excluded.as_of, excluded.rule_version, excluded.due_at)
"""

_HISTORY = (
    "client_id",
    "seq",
    "old_segment",
    "new_segment",
    "recency_score",
    "frequency_score",
    "monetary_score",
    "rule_version",
    "as_of",
    "changed_at",
    "reason",
)

_NOBODY = Scores(None, None, None)  # type: ignore[arg-type]  # columns of a client without scores
_NOTHING = Figures(None, None, None)  # type: ignore[arg-type]


async def load(tx: Connection, client_ids: Iterable[UUID], rules: Rules) -> dict[UUID, Standing]:
    """Lock and read standings; a client that is not known yet gets an empty one."""
    wanted = sorted(map(quick, set(client_ids)))
    standings = {client_id: Standing(client_id) for client_id in wanted}
    for row in await tx.fetch(_LOCK, wanted):
        _restore(standings[row["client_id"]], row, rules)
    for client_id, day, purchases, value_minor in await _days(tx, wanted, rules):
        standings[client_id].days[day] = Day(purchases, value_minor)
    return standings


async def _days(tx: Connection, clients: Sequence[UUID], rules: Rules) -> list[asyncpg.Record]:
    if len(rules.rates) == 1:
        return await tx.fetch(_DAYS_IN_ONE_CURRENCY, clients)
    return await tx.fetch(_DAYS, clients, list(rules.rates), list(rules.rates.values()))


def _restore(standing: Standing, row: asyncpg.Record, rules: Rules) -> None:
    _, standing.seq, standing.segment, as_of, standing.rule_version, last_day, due_at, *rated = row
    standing.as_of, standing.last_day = as_of, last_day
    standing.due_on = rules.day_of(due_at) if due_at else None
    recency, frequency, monetary, days, value_minor = rated
    if recency is not None:
        standing.scores = Scores(recency, frequency, monetary)
        standing.figures = Figures((as_of - last_day).days, days, value_minor)


async def store(tx: Connection, standings: Sequence[Standing], rules: Rules) -> None:
    """Write standings back; their rows must have been loaded in this transaction."""
    if not standings:
        return
    rows = [
        (
            s.client_id,
            s.seq,
            s.segment,
            *(s.scores or _NOBODY),
            s.last_day,
            *(s.figures or _NOTHING)[1:],
            s.as_of,
            s.rule_version,
            _due_at(s, rules),
        )
        for s in standings
    ]
    await tx.execute(_STORE, *map(list, zip(*rows, strict=True)))


def _due_at(standing: Standing, rules: Rules) -> datetime | None:
    return rules.start_of(standing.due_on) if standing.due_on else None


async def say(tx: Connection, moves: Sequence[tuple[Change, Event | None]]) -> None:
    """Write moves into the history and the outbox, each with the event that caused it."""
    if not moves:
        return
    rows = [
        (
            c.client_id,
            c.seq,
            c.old_segment,
            c.new_segment,
            *(c.scores or _NOBODY),
            c.rule_version,
            c.as_of,
            c.changed_at,
            c.reason,
        )
        for c, _ in moves
    ]
    await append(tx, "segment_history", _HISTORY, rows)
    await outbox.add_all(tx, [_told(change, cause) for change, cause in moves])


def _told(change: Change, cause: Event | None) -> SegmentChanged:
    recency, frequency, monetary = change.scores or _NOBODY
    event = SegmentChanged(
        client_id=change.client_id,
        seq=change.seq,
        old_segment=change.old_segment,
        new_segment=change.new_segment,
        recency_score=recency,
        frequency_score=frequency,
        monetary_score=monetary,
        rule_version=change.rule_version,
        as_of=change.as_of,
        reason=change.reason,
        occurred_at=change.changed_at,
    )
    return event.caused_by(cause) if cause is not None else event
