"""Offering leads: each goes by the rules to one manager, with a window to claim it.

Leads are taken in the order in which they became due, each gets one offer with the next epoch, and
what finds nobody goes into the common queue. Everything about a batch is one sitting and one
transaction: the lead's row, the offer, turns and loads, the event, and the record of why. A crash
leaves the leads waiting.

A lead that is due alone, as most are, is decided without taking the desk. The look at what is due
brings it along with the desk's versions; it is decided on the floor as this process remembers it,
and written by one statement that does nothing if the desk has moved on since, or if somebody else
has the lead: then it is offered as any batch is. The same statement looks for the next lead.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from libs.shared import failpoints, outbox
from libs.shared.database import Connection
from libs.shared.events import Event
from libs.shared.timers import Ahead, Alone, Timer
from services.routing.deciding import FACTS, Decided, decide
from services.routing.desk import DESK, DESK_AS_SEEN, NEVER, remember

BATCH = 500

# For statements that lock leads and end their offers, with `seen.epoch = l.epoch`. Locking takes a
# lead as it is by then: offered again perhaps, by an offer that the statement began too early to
# see. It would stay open, and no other could ever be made. So who was offered again is let go.
WITH_ITS_OFFER = """CROSS JOIN LATERAL (
            SELECT epoch FROM offers
            WHERE offers.lead_id = l.lead_id AND offers.epoch = l.epoch OFFSET 0
        ) AS seen"""

_WAITING = f"""
    WITH due AS MATERIALIZED (
        SELECT {FACTS} FROM leads AS l LEFT JOIN client_segments AS s USING (client_id)
        WHERE state = 'waiting' AND due_at <= $1
        ORDER BY due_at, received_at, lead_id LIMIT $2 FOR UPDATE OF l SKIP LOCKED
    ), desk AS ({DESK.format(where="WHERE EXISTS (SELECT FROM due)")})
    SELECT * FROM due CROSS JOIN desk ORDER BY received_at, lead_id
"""
_FIRST = f"""
    SELECT {FACTS}, l.due_at FROM leads AS l LEFT JOIN client_segments AS s USING (client_id)
    WHERE state = 'waiting' {{but}} ORDER BY l.due_at, l.received_at, l.lead_id LIMIT {{most}}
"""
# Two are read to know whether there is only one.
_LOOK = f"""
    SELECT waiting.*, {DESK_AS_SEEN}, clock_timestamp() AS now
    FROM ({_FIRST.format(but="", most=2)}) AS waiting CROSS JOIN desk ORDER BY due_at
"""
_WRITE = """
    WITH given AS (
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::text[], $6::text[],
            $7::text[], $8::text[], $9::int[])
            AS o (lead_id, manager_id, epoch, round, why, rule, team, strategy, place)
    ), offered AS (
        UPDATE leads SET state = 'offered', manager_id = o.manager_id, epoch = o.epoch,
            round = o.round, due_at = $11, claimed_at = NULL, queued_at = NULL, was_left = NULL,
            hops = leads.hops + 1,
            asked = CASE WHEN o.round > leads.round THEN '{}' ELSE leads.asked END
        FROM given AS o WHERE leads.lead_id = o.lead_id
    ), remembered AS (
        INSERT INTO offers (lead_id, manager_id, epoch, why, rule, team, strategy, place,
            sitting_id, offered_at, claim_until)
        SELECT lead_id, manager_id, epoch, why, rule, team, strategy, place, $12, $10, $11
        FROM given
    ), loaded AS (
        UPDATE loads SET open_leads = n.open_leads
        FROM unnest($18::uuid[], $19::int[]) AS n (id, open_leads) WHERE manager_id = n.id
    ), turned AS (
        INSERT INTO turns
        SELECT * FROM unnest($20::text[], $21::uuid[], $22::bigint[], $23::bigint[], $24::bigint[])
        ON CONFLICT (wheel, manager_id) DO UPDATE SET passed = excluded.passed,
            turn = excluded.turn, stride = excluded.stride
    ), sat AS (
        INSERT INTO sittings (sitting_id, at, engine, rule_version, roster, inputs, outcomes)
        VALUES ($12, $10, $13, $14, $15, $16, $17)
    )
    INSERT INTO outbox ({columns}) SELECT * FROM unnest($25::smallint[], $26::uuid[], $27::text[],
        $28::text[], $29::text[], $30::text[], $31::timestamptz[], $32::bytea[], $33::text[],
        $34::uuid[], $35::text[])
""".replace("{columns}", ", ".join(outbox.COLUMNS))
# The same for one lead, on condition that it still waits at its epoch and that the desk is as it
# was seen: without the desk it cannot have been queued and drawn again. Locks in the usual order.
# What it looks ahead at is older than its own desk, and yet as good as seen with it: between the
# two nobody else had the desk, or nothing is written. It looks from this lead's instant on: before
# it are the dead entries of all that was offered since the last VACUUM.
_IF_AS_SEEN = """WHERE version = $34 AND roster = $35 AND EXISTS (
        SELECT FROM lead WHERE state = 'waiting' AND epoch = $3 - 1)"""
_FROM_HERE_ON = "AND lead_id <> $1 AND l.due_at >= (SELECT due_at FROM lead)"
_WRITE_IF = f"""
    WITH lead AS MATERIALIZED (
        SELECT state, epoch, due_at FROM leads WHERE lead_id = $1 FOR UPDATE SKIP LOCKED
    ), desk AS ({DESK.format(where=_IF_AS_SEEN)}
    ), offered AS (
        UPDATE leads SET state = 'offered', manager_id = $2, epoch = $3, round = $4, due_at = $11,
            claimed_at = NULL, queued_at = NULL, was_left = NULL, hops = hops + 1,
            asked = CASE WHEN $4 > round THEN '{{}}' ELSE asked END
        FROM desk WHERE lead_id = $1
    ), remembered AS (
        INSERT INTO offers (lead_id, manager_id, epoch, why, rule, team, strategy, place,
            sitting_id, offered_at, claim_until)
        SELECT $1, $2, $3, $5, $6, $7, $8, $9, $12, $10, $11 FROM desk
    ), loaded AS (
        UPDATE loads SET open_leads = $18 FROM desk WHERE manager_id = $2
    ), turned AS (
        INSERT INTO turns SELECT $19, $2, $20, $21, $22 FROM desk
        ON CONFLICT (wheel, manager_id) DO UPDATE SET passed = excluded.passed,
            turn = excluded.turn, stride = excluded.stride
    ), sat AS (
        INSERT INTO sittings (sitting_id, at, engine, rule_version, roster, inputs, outcomes)
        SELECT $12, $10, $13, $14, $15, $16, $17 FROM desk
    ), told AS (
        INSERT INTO outbox ({", ".join(outbox.COLUMNS)})
        SELECT $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33 FROM desk
    )
    SELECT waiting.*, version AS previous, version, roster, place
    FROM desk LEFT JOIN ({_FIRST.format(but=_FROM_HERE_ON, most=1)}) AS waiting ON true
"""
_QUEUE = """
    WITH left_over AS (
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::timestamptz[], $5::text[],
            $6::bool[]) AS w (lead_id, why, place, due_at, state, is_news)
    ), kept AS (
        UPDATE leads SET state = w.state, was_left = w.state, manager_id = NULL, due_at = w.due_at,
            queued_at = CASE WHEN w.state = 'queued' THEN coalesce(queued_at, $7) END
        FROM left_over AS w WHERE leads.lead_id = w.lead_id
    )
    INSERT INTO left_waiting (lead_id, at, sitting_id, place, why)
    SELECT lead_id, $7, $8, place, why FROM left_over WHERE is_news
"""


async def offer_waiting_leads(tx: Connection, now: datetime) -> int:
    """Offer what is due to be offered; at most `BATCH` leads."""
    waiting = await tx.fetch(_WAITING, now, BATCH)
    if waiting:
        await offer_these(tx, waiting, now)
    return len(waiting)


async def offer_these(
    tx: Connection,
    rows: Sequence[asyncpg.Record],
    now: datetime,
    *,
    freed: Sequence[UUID] = (),
    said: Sequence[Event] = (),
) -> None:
    """Offer leads by the rules, or put them into the common queue; arguments as of `decide`.

    The caller has taken the desk in this transaction.
    """
    decided = await decide(tx, rows, now, freed=freed, said=said)
    await _write(tx, decided)
    remember(decided.known, rows[0]["version"])
    failpoints.reach("outbox.added")


async def _write(tx: Connection, decided: Decided) -> None:
    at, _, sitting_id, *_ = decided.sitting
    if decided.left:
        await tx.execute(_QUEUE, *_transposed(decided.left, 6), at, sitting_id)
    if decided.is_news:  # a queue that was tried again in vain is no news
        await tx.execute(
            _WRITE,
            *_transposed(decided.given, 9),
            *decided.sitting,
            *_transposed(decided.loads, 2),
            *_transposed(decided.turns, 5),
            *_transposed(decided.told, len(outbox.COLUMNS)),
        )


async def look_ahead(connection: Connection) -> Ahead:
    """The first lead that waits, with the desk as it is."""
    rows = await connection.fetch(_LOOK)
    return Ahead(rows[0]["due_at"], rows[0]["now"], rows) if rows else Ahead(None)


async def offer_alone(connection: Connection, now: datetime, ahead: Ahead) -> Ahead | None:
    """Offer the lead that is due, if it is the only one, in one round trip.

    Outside any transaction: the statement that writes is one. What was seen before it holds, or
    else nothing is written, because loads, turns and roster never change without the desk.

    Returns:
        What is due next; None: nothing is done, `offer_waiting_leads` has to look.
    """
    due = [row for row in ahead.rows if row["due_at"] <= now]
    if len(due) != 1:
        return None
    desk = due[0]
    decided = await decide(connection, due, now)
    rows: Sequence[asyncpg.Record] = ()
    if decided.given:
        (offer,), (load,), (turn,) = decided.given, decided.loads, decided.turns
        (_, count), (wheel, _, *stands), (event,) = load, turn, decided.told
        values = (*offer, *decided.sitting, count, wheel, *stands, *event)
        rows = await connection.fetch(_WRITE_IF, *values, desk["version"], desk["roster"])
    remember(decided.known, rows[0]["version"] if rows else NEVER)
    if not rows:
        return None
    after = rows[0]["due_at"]
    if after is None:
        return Ahead(None)
    return Ahead(after, rows=rows if after > now else ())  # due as well: there may be many


def _transposed(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


OFFERING = Timer(
    "offering",
    "SELECT min(due_at) FROM leads WHERE state = 'waiting'",
    offer_waiting_leads,
    alone=Alone(look_ahead, offer_alone),
)
