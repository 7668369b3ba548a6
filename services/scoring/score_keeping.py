"""Loading clients' standings, and storing what became of them, thousands at a time.

Whoever changes a standing loads it here first, which locks its row; what is stored goes out with
its segment.changed events in the same transaction. Rows are always locked in the order of their
ids, so that two batches cannot wait for each other.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson

from libs.shared import context, outbox
from libs.shared.bulk import append
from libs.shared.database import Connection
from libs.shared.events import Event, SegmentChanged
from libs.shared.ids import new_quick_id, quick
from services.scoring.rfm import Figures, Scores
from services.scoring.rules import Rules
from services.scoring.standing import Change, Day, Standing
from services.scoring.touches.changes import note_changed_clients

# What the fold needs to go on; ratings and figures follow from the days.
_LOCK = """
    SELECT client_id, seq, segment, as_of, rule_version, due_at, override_segment, override_until
    FROM scores WHERE client_id = ANY($1::uuid[]) ORDER BY client_id FOR UPDATE
"""
_RATED = """
    SELECT client_id, last_day, oldest_day, monthly_run, recency_score, frequency_score,
        monetary_score, frequency, monetary_minor
    FROM scores WHERE client_id = ANY($1::uuid[]) AND recency_score IS NOT NULL
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

# An UPDATE of the rows known to be there is no faster, and its plan may read the whole table.
_STORE = """
    INSERT INTO scores (client_id, seq, segment, recency_score, frequency_score, monetary_score,
        last_day, frequency, monetary_minor, as_of, due_at, oldest_day, monthly_run, rule_version)
    SELECT *, $14::int FROM unnest($1::uuid[], $2::int[], $3::text[], $4::smallint[],
        $5::smallint[], $6::smallint[], $7::date[], $8::int[], $9::bigint[], $10::date[],
        $11::timestamptz[], $12::date[], $13::smallint[])
    ON CONFLICT (client_id) DO UPDATE SET
        (seq, segment, recency_score, frequency_score, monetary_score, last_day, frequency,
         monetary_minor, as_of, due_at, oldest_day, monthly_run, rule_version)
        = (excluded.seq, excluded.segment, excluded.recency_score, excluded.frequency_score,
           excluded.monetary_score, excluded.last_day, excluded.frequency,
           excluded.monetary_minor, excluded.as_of, excluded.due_at, excluded.oldest_day,
           excluded.monthly_run, excluded.rule_version)
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

_SEGMENT_CHANGED = SegmentChanged.wire_type()

_NOBODY = Scores(None, None, None)  # type: ignore[arg-type]  # columns of a client without scores
_NOTHING = Figures(None, None, None)  # type: ignore[arg-type]


async def load(tx: Connection, client_ids: Iterable[UUID], rules: Rules) -> dict[UUID, Standing]:
    """Lock and read standings; a client that is not known yet gets an empty one.

    Ratings and figures are not read: whoever asks for them first settles (`add_ratings` else).
    """
    wanted = sorted(map(quick, set(client_ids)))
    standings = {client_id: Standing(client_id) for client_id in wanted}
    for row in await tx.fetch(_LOCK, wanted):
        client_id, seq, segment, as_of, version, due_at, override, until = row
        standing = standings[client_id]
        standing.seq, standing.segment, standing.as_of = seq, segment, as_of
        standing.rule_version = version
        if due_at is not None:
            standing.due_on = rules.day_of(due_at)
        if until is not None:
            standing.override, standing.override_until = override, until
    for client_id, day, purchases, value_minor in await _days(tx, wanted, rules):
        standings[client_id].days[day] = Day(purchases, value_minor)
    return standings


async def _days(tx: Connection, clients: Sequence[UUID], rules: Rules) -> list[asyncpg.Record]:
    if len(rules.rates) == 1:
        return await tx.fetch(_DAYS_IN_ONE_CURRENCY, clients)
    return await tx.fetch(_DAYS, clients, list(rules.rates), list(rules.rates.values()))


async def add_ratings(tx: Connection, standings: Mapping[UUID, Standing]) -> None:
    """Read what was stored of ratings and figures into standings that were loaded."""
    for client_id, last_day, oldest_day, run, *rated in await tx.fetch(_RATED, list(standings)):
        recency, frequency, monetary, days, value_minor = rated
        standing = standings[client_id]
        standing.last_day, standing.oldest_day, standing.monthly_run = last_day, oldest_day, run
        standing.scores = Scores(recency, frequency, monetary)
        standing.figures = Figures((standing.as_of - last_day).days, days, value_minor)


async def store(tx: Connection, standings: Iterable[Standing], rules: Rules) -> None:
    """Write back those that were settled; they must have been loaded in this transaction."""
    settled = [s for s in standings if s.is_settled]
    if settled:
        await tx.execute(_STORE, *_columns(settled, rules), rules.version)
        await note_changed_clients(tx, [standing.client_id for standing in settled])


def _columns(standings: Sequence[Standing], rules: Rules) -> list[list[object]]:
    """The arrays of `_STORE`."""
    scores = [s.scores or _NOBODY for s in standings]
    figures = [s.figures or _NOTHING for s in standings]
    return [
        [s.client_id for s in standings],
        [s.seq for s in standings],
        [s.segment for s in standings],
        [recency for recency, _, _ in scores],
        [frequency for _, frequency, _ in scores],
        [monetary for _, _, monetary in scores],
        [s.last_day for s in standings],
        [days for _, days, _ in figures],
        [value_minor for _, _, value_minor in figures],
        [s.as_of for s in standings],
        [_due_at(s, rules) for s in standings],
        [s.oldest_day for s in standings],
        [s.monthly_run for s in standings],
    ]


def _due_at(standing: Standing, rules: Rules) -> datetime | None:
    return rules.start_of(standing.due_on) if standing.due_on else None


async def say(tx: Connection, moves: Sequence[tuple[Change, Event | None]]) -> None:
    """Write moves into the history and the outbox, each with the event that caused it."""
    if not moves:
        return
    history = []
    told = []
    for change, cause in moves:
        client_id, seq, old, new, scores, version, as_of, at, reason = change
        recency, frequency, monetary = scores or _NOBODY
        rated = (recency, frequency, monetary)
        history.append((client_id, seq, old, new, *rated, version, as_of, at, reason))
        told.append(outbox_row(change, cause))
    await append(tx, "segment_history", _HISTORY, history)
    await outbox.add_rows(tx, told)


def outbox_row(change: Change, cause: Event | None) -> outbox.Row:
    """The row of the change's segment.changed, caused by an event or by time alone.

    Written out because making and validating the event takes four times as long, and nearly
    every purchase passes here. A test holds it to `outbox.row_of` of the validated event.
    """
    client_id, seq, old, new, scores, version, as_of, at, reason = change
    recency, frequency, monetary = scores or _NOBODY
    key = str(client_id)
    data = orjson.dumps(
        {
            "occurred_at": at,
            "client_id": key,
            "seq": seq,
            "old_segment": old,
            "new_segment": new,
            "recency_score": recency,
            "frequency_score": frequency,
            "monetary_score": monetary,
            "rule_version": version,
            "as_of": as_of,
            "reason": reason,
        },
        option=orjson.OPT_UTC_Z,
    )
    thread = (cause.thread if cause else None) or context.current()
    return (
        outbox.shard_of(key),
        new_quick_id(),
        SegmentChanged.topic,
        SegmentChanged.current_topic,
        key,
        _SEGMENT_CHANGED,
        at,
        data,
        thread.correlation_id,
        cause.event_id if cause else thread.causation_id,
        thread.traceparent,
    )
