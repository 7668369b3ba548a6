"""Purchases of clients to whom nothing else happens: counted, rated, kept and said in SQL.

Nearly every deal is such a one: the only one of its client in the batch, scored before under the
rules in force, with no boundary passed since and no analyst's word. What follows from it then needs
none of the client's other purchases: the figures grow by this one, and `rating_in_sql.py` rates
them. All other deals are left to the fold (`standing.py`), which both must agree with, by test.
"""

from collections.abc import Sequence
from datetime import date, datetime
from functools import partial
from typing import NamedTuple

from libs.shared import context, failpoints
from libs.shared.arrays import array_text, ids_text
from libs.shared.at_once import ALL_ARE_NEW, Statement
from libs.shared.database import Connection
from libs.shared.events import DealClosed, SegmentChanged
from libs.shared.ids import new_ids
from libs.shared.outbox import SENT_COLUMNS, SHARDS
from services.scoring.rating_in_sql import Rating
from services.scoring.rules import Rules
from services.scoring.rules_in_force import RULES_TEXTS
from services.scoring.score_keeping import NEW_SCORES, SCORE_COLUMNS

# One deal of each client, in the order of the clients' ids.
_TOLD_TYPES = {
    "client_id": "uuid",
    "deal_id": "uuid",
    "day": "date",
    "closed_at": "timestamptz",
    "amount_minor": "bigint",
    "currency": "text",
    "value_minor": "bigint",
    "today": "date",
    "heard_at": "text",  # also a part of the event as it stands
    "cause_id": "uuid",
    "event_id": "uuid",  # of the move, if there is one: PostgreSQL takes ten times as long for it
    "correlation_id": "text",
    "traceparent": "text",
    "is_alone": "boolean",
}

# Everybody is locked here, those left to the fold included: it must not lock out of order. OFFSET
# keeps each row being looked up by its key (see `score_keeping.py`). The planner is not told how
# many there are, or it would plan anew for each number.
_BUY = """
    told AS (
        SELECT * FROM unnest({arrays}) WITH ORDINALITY AS told ({names}, place) WHERE {gate}
    ), found AS MATERIALIZED (
        SELECT told.*, heard_at::timestamptz AS at, seq, segment, last_before, oldest_before,
            frequency_before, monetary_before, greatest(as_of, today, day) AS on_day,
            coalesce(is_alone AND {in_force} = {texts} AND NOT EXISTS (
                SELECT FROM purchases WHERE purchases.deal_id = told.deal_id OFFSET 0
            ) AND (seq IS NULL OR (
                rule_version = {version} AND override_until IS NULL
                AND (due_at IS NULL OR due_at > heard_at::timestamptz)
                AND day <= greatest(as_of, today)
            )), false) AS is_plain, -- never unknown: nobody would take the deal
            NOT EXISTS (
                SELECT FROM purchases WHERE purchases.client_id = told.client_id
                    AND purchases.day = told.day AND NOT is_returned OFFSET 0
            ) AS is_new_day
        FROM told LEFT JOIN LATERAL (
            SELECT seq, segment, last_day AS last_before, oldest_day AS oldest_before,
                frequency AS frequency_before, monetary_minor AS monetary_before, as_of, due_at,
                rule_version, override_until
            FROM scores WHERE scores.client_id = told.client_id FOR UPDATE
        ) AS locked ON true
    ), counted AS MATERIALIZED (
        SELECT client_id, deal_id, day, closed_at, amount_minor, currency, at, heard_at, cause_id,
            event_id, correlation_id, traceparent, seq IS NOT NULL AS is_known,
            coalesce(seq, 0) AS seq, segment, on_day,
            greatest(last_before, day) AS last_day,
            CASE WHEN counts THEN least(oldest_before, day) ELSE oldest_before END AS oldest_day,
            coalesce(frequency_before, 0) + (counts AND {is_one_more})::int AS frequency,
            coalesce(monetary_before, 0) + CASE WHEN counts THEN value_minor ELSE 0 END
                AS monetary_minor,
            NULL::smallint AS monthly_run, NULL AS override_segment, NULL::date AS override_until
        FROM (SELECT *, day > on_day - {period} AS counts FROM found WHERE is_plain) AS plain
    ), rated AS MATERIALIZED (
        {rated}
    ), grown AS (
        UPDATE scores SET ({changed_columns}) = ROW({changed}) FROM rated
        WHERE scores.client_id = rated.client_id AND is_known RETURNING scores.client_id
    ), begun AS (
        INSERT INTO scores ({score_columns}) SELECT client_id, {changed}
        FROM rated WHERE NOT is_known
        ON CONFLICT (client_id) DO UPDATE SET {new_scores}
        RETURNING client_id
    ), kept AS (
        SELECT client_id FROM grown UNION ALL SELECT client_id FROM begun
    ), noted AS (
        INSERT INTO touch_changes (client_id) SELECT client_id FROM kept
    ), bought AS (
        INSERT INTO purchases (deal_id, client_id, day, closed_at, amount_minor, currency)
        SELECT deal_id, client_id, day, closed_at, amount_minor, currency FROM rated
    ), added AS (
        INSERT INTO purchase_counts (added) SELECT count(*) FROM rated HAVING count(*) > 0
    ), moves AS MATERIALIZED (
        SELECT *, seq + 1 AS new_seq FROM rated WHERE new_segment IS DISTINCT FROM segment
    ), remembered AS (
        INSERT INTO segment_history (client_id, seq, old_segment, new_segment, recency_score,
            frequency_score, monetary_score, rule_version, as_of, changed_at, reason)
        SELECT client_id, new_seq, segment, new_segment, recency_rating, frequency_rating,
            monetary_rating, {version}, on_day, at, 'purchase'
        FROM moves
    ), said AS (
        INSERT INTO outbox (shard, event_id, topic, also_topic, key, type, time, data,
            correlation_id, causation_id, traceparent)
        SELECT crc32(convert_to(client_id::text, 'UTF8')) % {shards}, event_id, {topic},
            {current_topic}, client_id::text, {type}, at, convert_to({data}, 'UTF8'),
            correlation_id, cause_id, traceparent
        FROM moves WHERE (SELECT count(*) FROM kept) > 0 RETURNING {sent}
    )
"""
_LEFT = "SELECT place FROM found WHERE NOT is_plain"
# What was said can be sent before it is read if nothing of these clients waits to be sent: nothing
# stood there as the statement began, and nobody has moved the clients between that and our locks.
_SAID = f"""
    SELECT said.* FROM said WHERE (SELECT 1 / (NOT EXISTS ({_LEFT}))::int) = 1
        AND NOT EXISTS (SELECT FROM outbox WHERE outbox.shard = said.shard)
        AND NOT EXISTS (SELECT FROM found WHERE seq IS DISTINCT FROM (
            SELECT seq FROM scores WHERE scores.client_id = found.client_id
        ))
"""
# `SCORE_COLUMNS` but for the first.
_CHANGED = """rated.seq + (new_segment IS DISTINCT FROM rated.segment)::int, new_segment,
            recency_rating, frequency_rating, monetary_rating, rated.last_day, rated.frequency,
            rated.monetary_minor, on_day, {due_at}, rated.oldest_day, NULL::smallint, {version}"""
# As `segment_moves.outbox_row` writes it; names of segments need no quoting.
_DATA = """concat('{{"occurred_at":"', heard_at, '","client_id":"', client_id, '","seq":', new_seq,
    ',"old_segment":', coalesce('"' || segment || '"', 'null'), ',"new_segment":"', new_segment,
    '","recency_score":', recency_rating, ',"frequency_score":', frequency_rating,
    ',"monetary_score":', monetary_rating, ',"rule_version":', {version}, ',"as_of":"', on_day,
    '","reason":"purchase"}}')"""


class _Prepared(NamedTuple):
    """The statement under some rules, and one that fails instead of leaving any deal.

    `values` follow the arrays.
    """

    rules: Rules
    statement: str
    at_once: str
    values: Sequence[object]


_prepared: _Prepared | None = None  # under the rules that were last gone by


async def buy_plainly(
    tx: Connection, deals: Sequence[DealClosed], rules: Rules
) -> Sequence[DealClosed]:
    """Add the purchases of those to whom nothing else happens, and say the moves.

    Every client of the deals is locked. As `load_alone`, only for who knows that nobody else adds
    or changes purchases of these clients meanwhile.

    Args:
        rules: Thought to be in force; if they are not, nothing is done.

    Returns:
        The deals that are left, in their order; all deals of a client or none.
    """
    prepared = _under(rules)
    if prepared is None:
        return deals
    clients, arrays = _told(deals, rules)
    left = await tx.fetch(prepared.statement, *arrays, *prepared.values)
    failpoints.reach("outbox.added")
    if not left:
        return ()
    remain = {clients[place - 1] for (place,) in left}
    return [deal for deal in deals if str(deal.client_id) in remain]


def buying_plainly(deals: Sequence[DealClosed], rules: Rules) -> Statement | None:
    """`buy_plainly` as a statement that fails if any deal is left; None where some surely are."""
    prepared = _under(rules)
    if prepared is None:
        return None
    clients, arrays = _told(deals, rules)
    if len(clients) < len(deals):
        return None
    return Statement(prepared.at_once, _SAID, (*arrays, *prepared.values))


def _under(rules: Rules) -> "_Prepared | None":
    global _prepared  # made anew when the rules change
    if rules.run_bounds:  # a run of months follows from all purchases
        return None
    if _prepared is None or _prepared.rules is not rules:
        _prepared = _prepare(rules)
    return _prepared


def _told(deals: Sequence[DealClosed], rules: Rules) -> tuple[list[str], list[str]]:
    """The clients in their order, and the arrays of `_TOLD_TYPES` as texts."""
    first: dict[str, DealClosed] = {}
    several: set[str] = set()
    for deal in deals:
        client = str(deal.client_id)
        if client in first:
            several.add(client)
        else:
            first[client] = deal
    clients = sorted(first)
    told = [first[client] for client in clients]
    threads = [deal.thread or context.current() for deal in told]
    day_of, value = rules.day_of, rules.value_minor
    # Other rules may know a currency that these do not: the fold looks which are in force.
    has_value = [deal.currency in rules.rates for deal in told]
    is_alone = [known and c not in several for c, known in zip(clients, has_value, strict=True)]
    return clients, [
        "{" + ",".join(clients) + "}",
        ids_text(deal.deal_id for deal in told),
        array_text([day_of(deal.closed_at) for deal in told]),
        array_text([deal.closed_at for deal in told]),
        array_text([deal.amount_minor for deal in told]),
        array_text([deal.currency for deal in told]),
        array_text(
            [
                value(deal.amount_minor, deal.currency) if known else None
                for deal, known in zip(told, has_value, strict=True)
            ]
        ),
        array_text(_days([deal.occurred_at for deal in told], rules)),
        array_text([deal.occurred_at for deal in told]),
        ids_text(deal.event_id for deal in told),
        "{" + ",".join(new_ids(len(told))) + "}",
        array_text([thread.correlation_id for thread in threads]),
        array_text([thread.traceparent for thread in threads]),
        array_text(is_alone),
    ]


def _days(moments: Sequence[datetime], rules: Rules) -> list[date]:
    """The days of instants that nearly always lie in the same one."""
    first, last = rules.day_of(min(moments)), rules.day_of(max(moments))
    if first == last:
        return [first] * len(moments)
    return [rules.day_of(moment) for moment in moments]


def _prepare(rules: Rules) -> _Prepared:
    rating = Rating(rules, date.min)
    arrays = [rating.add(None, f"text::{kind}[]") for kind in _TOLD_TYPES.values()]
    version = rating.add(rules.version, "int")
    buy = partial(
        _BUY.format,
        arrays=", ".join(f"(SELECT {array})" for array in arrays),
        names=", ".join(_TOLD_TYPES),
        version=version,
        in_force=RULES_TEXTS,
        texts=rating.add(rules.texts, "text[]"),
        is_one_more="true" if rules.counts_purchases else "is_new_day",
        period=rating["period"],
        rated=rating.rated("SELECT * FROM counted"),
        score_columns=", ".join(SCORE_COLUMNS),
        new_scores=NEW_SCORES,
        changed_columns=", ".join(SCORE_COLUMNS[1:]),
        changed=_CHANGED.format(due_at=rating.midnight("due_on"), version=version),
        shards=SHARDS,
        sent=", ".join(SENT_COLUMNS),
        topic=rating.add(SegmentChanged.topic, "text"),
        current_topic=rating.add(SegmentChanged.current_topic, "text"),
        type=rating.add(SegmentChanged.wire_type(), "text"),
        data=_DATA.format(version=version),
    )
    values = rating.values[len(arrays) :]
    return _Prepared(rules, f"WITH {buy(gate='true')} {_LEFT}", buy(gate=ALL_ARE_NEW), values)
