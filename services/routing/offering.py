"""Offering leads: each goes by the rules to one manager, with a window to claim it.

Leads are taken in the order in which they became due, each gets one offer with the next epoch, and
what finds nobody goes into the common queue. Everything about a batch is one sitting and one
transaction: the lead's row, the offer, turns and loads, the event, and the record of why. A crash
leaves the leads waiting.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from libs.shared import failpoints, outbox
from libs.shared.calendars import NeverOpen
from libs.shared.database import Connection, dumps
from libs.shared.events import Event, LeadAssigned, LeadEscalated
from libs.shared.ids import new_quick_id
from libs.shared.policies import current
from libs.shared.timers import Timer
from services.routing.choosing.floor import Floor
from services.routing.choosing.lead import FACTS as LEAD_FACTS
from services.routing.choosing.lead import LeadFacts
from services.routing.choosing.sitting import ENGINE, Outcome, Terms, outcomes_text, sit
from services.routing.desk import DESK, Known, floor_now
from services.routing.policy import ClaimPolicy, MutingPolicy, PresencePolicy

BATCH = 500

FACTS = """l.lead_id, l.client_id, l.epoch, l.round, l.hops, l.asked, l.owner_id, l.is_returning,
        l.source, l.channel, l.region, l.city, l.phone_country, l.phone_region, l.domain,
        l.product, l.language, l.utm::text AS utm, l.amount_minor, l.complexity, s.segment,
        l.was_left, l.received_at"""
"""What a sitting needs of `leads AS l` and `client_segments AS s`, whose desk it has taken."""

_WIDTH, _UTM = len(LEAD_FACTS), LEAD_FACTS.index("utm")
_WAITING = f"""
    WITH due AS MATERIALIZED (
        SELECT {FACTS} FROM leads AS l LEFT JOIN client_segments AS s USING (client_id)
        WHERE state = 'waiting' AND due_at <= $1
        ORDER BY due_at, received_at, lead_id LIMIT $2 FOR UPDATE OF l SKIP LOCKED
    ), desk AS ({DESK.format(where="WHERE EXISTS (SELECT FROM due)")})
    SELECT * FROM due CROSS JOIN desk ORDER BY received_at, lead_id
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
# The same for the one lead that mostly comes alone: plain values are a third cheaper than arrays.
_WRITE_ONE = """
    WITH offered AS (
        UPDATE leads SET state = 'offered', manager_id = $2, epoch = $3, round = $4, due_at = $11,
            claimed_at = NULL, queued_at = NULL, was_left = NULL, hops = hops + 1,
            asked = CASE WHEN $4 > round THEN '{}' ELSE asked END
        WHERE lead_id = $1
    ), remembered AS (
        INSERT INTO offers (lead_id, manager_id, epoch, why, rule, team, strategy, place,
            sitting_id, offered_at, claim_until)
        VALUES ($1, $2, $3, $5, $6, $7, $8, $9, $12, $10, $11)
    ), loaded AS (
        UPDATE loads SET open_leads = $18 WHERE manager_id = $2
    ), turned AS (
        INSERT INTO turns VALUES ($19, $2, $20, $21, $22)
        ON CONFLICT (wheel, manager_id) DO UPDATE SET passed = excluded.passed,
            turn = excluded.turn, stride = excluded.stride
    ), sat AS (
        INSERT INTO sittings (sitting_id, at, engine, rule_version, roster, inputs, outcomes)
        VALUES ($12, $10, $13, $14, $15, $16, $17)
    )
    INSERT INTO outbox ({columns}) VALUES ($23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)
""".replace("{columns}", ", ".join(outbox.COLUMNS))
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
    """Offer leads by the rules, or put them into the common queue.

    Args:
        rows: `FACTS` of each with the desk, which the caller has just taken.
        freed: Who holds a lead less than the tables say, once for each.
        said: What is to be said before.
    """
    claims = (await current(tx, ClaimPolicy)).body
    known = await _floor(tx, rows[0], now, claims)
    floor = known.floor
    for manager_id in freed:
        floor.seats[floor.place[manager_id]].load -= 1
    terms = await _terms(tx, claims, now)
    leads = [_facts(row) for row in rows]
    inputs = {**floor.begin_record(), "engine": ENGINE, "at": now, "terms": terms.record()}
    inputs |= {"rules": known.rules.version, "leads": [lead.record() for lead in leads]}
    outcomes = sit(floor, leads, known.rules, terms)
    for place, recent in known.recent.items():
        seat = floor.seats[place]
        recent.extend([now] * (seat.in_day - len(recent)))
    until = end_of_window(claims, now)
    sitting_id = new_quick_id()
    events = [*said, *_told(outcomes, rows, now, until)]
    news = _news(outcomes, rows)
    await _queue(tx, outcomes, news, now, sitting_id, claims)
    if not any(news) and not said:
        return  # a queue that was tried again in vain: nothing has changed, so nothing is told
    given = _given(known, outcomes)
    sitting = (
        *(now, until, sitting_id, ENGINE, known.rules.version, known.roster),
        *(dumps(inputs).encode(), outcomes_text(outcomes)),
    )
    loads, turns = _loads(floor, outcomes, freed), _turns(outcomes)
    told = [outbox.row_of(event) for event in events]
    if len(given) == len(loads) == len(turns) == len(told) == 1:
        wheel, _, *turn = turns[0]
        await tx.execute(_WRITE_ONE, *given[0], *sitting, loads[0][1], wheel, *turn, *told[0])
    else:
        await tx.execute(
            _WRITE,
            *_transposed(given, 9),
            *sitting,
            *_transposed(loads, 2),
            *_transposed(turns, 5),
            *_transposed(told, len(outbox.COLUMNS)),
        )
    failpoints.reach("outbox.added")


async def _floor(tx: Connection, desk: asyncpg.Record, now: datetime, claims: ClaimPolicy) -> Known:
    minutes = (await current(tx, PresencePolicy)).body.sign_of_life_minutes
    holds = None if minutes is None else timedelta(minutes=minutes)
    return await floor_now(tx, desk, now, sign_holds=holds, results_days=claims.results_days)


async def _terms(tx: Connection, claims: ClaimPolicy, now: datetime) -> Terms:
    muting = (await current(tx, MutingPolicy)).body
    again = now + timedelta(minutes=muting.look_again_minutes)
    muted = tuple(
        (segment, min(period.ends_at, again))
        for period in muting.periods
        if period.begins_at <= now < period.ends_at
        for segment in period.segments
    )
    return Terms(
        rounds=claims.rounds,
        most_open_leads=claims.most_open_leads,
        most_offers=claims.most_offers,
        owner_first=claims.returning_client_goes_to_owner,
        muted=muted,
    )


def _facts(row: asyncpg.Record) -> LeadFacts:
    values = list(row.values())[:_WIDTH]
    values[_UTM] = orjson.loads(values[_UTM]) if values[_UTM] else {}
    return LeadFacts(*values)


def end_of_window(claims: ClaimPolicy, now: datetime) -> datetime:
    """When an offer made now lapses."""
    return in_working_time(claims, now, claims.claim_window_minutes)


def in_working_time(claims: ClaimPolicy, now: datetime, minutes: int) -> datetime:
    """The instant by which so many minutes of the policy's hours have passed."""
    span = timedelta(minutes=minutes)
    if claims.calendar is None:
        return now + span
    try:
        return claims.calendar.add_working_time(now, span)
    except NeverOpen:  # a calendar without hours must not stop everything
        return now + span


def _given(known: Known, outcomes: Sequence[Outcome]) -> list[tuple[Any, ...]]:
    names = known.rules.name_of
    return [
        (o.lead_id, o.manager_id, o.epoch, o.round, o.why, names(o.rule), o.team, o.strategy, n)
        for n, o in enumerate(outcomes)
        if o.manager_id is not None
    ]


def _transposed(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _loads(
    floor: Floor, outcomes: Sequence[Outcome], freed: Sequence[UUID]
) -> list[tuple[UUID, int]]:
    """Loads as they are now, of those whose changed."""
    chosen = {o.manager_id for o in outcomes if o.manager_id is not None}
    seats = [floor.seats[floor.place[m]] for m in sorted(chosen | set(freed))]
    return [(seat.manager_id, seat.load) for seat in seats]


def _turns(outcomes: Sequence[Outcome]) -> list[tuple[Any, ...]]:
    """Turns as they are now, of those whose changed."""
    turns = {
        (o.wheel, o.manager_id): (o.stood[1], o.turn, o.stood[1] - o.stood[0])
        for o in outcomes
        if o.stood is not None and o.wheel is not None and o.manager_id is not None
    }
    return [(*key, *turn) for key, turn in sorted(turns.items())]


async def _queue(
    tx: Connection,
    outcomes: Sequence[Outcome],
    news: Sequence[bool],
    now: datetime,
    sitting_id: UUID,
    claims: ClaimPolicy,
) -> None:
    again = now + timedelta(minutes=claims.queue_again_minutes)
    rows = [
        (o.lead_id, o.why, n, o.muted_until or again, _left(o), news[n])
        for n, o in enumerate(outcomes)
        if o.manager_id is None
    ]
    if rows:
        await tx.execute(_QUEUE, *_transposed(rows, 6), now, sitting_id)


def _left(outcome: Outcome) -> str:
    return "muted" if outcome.muted_until else "queued"


def _news(outcomes: Sequence[Outcome], rows: Sequence[asyncpg.Record]) -> list[bool]:
    """Whether each outcome is anything new: who was left waiting and still is, is not."""
    return [
        o.manager_id is not None or row["was_left"] != _left(o)
        for o, row in zip(outcomes, rows, strict=True)
    ]


def _told(
    outcomes: Sequence[Outcome],
    rows: Sequence[asyncpg.Record],
    now: datetime,
    until: datetime,
) -> list[Event]:
    """Who was in the common queue already and stays there is no news; nor is a muted segment."""
    told: list[Event] = []
    for outcome, row in zip(outcomes, rows, strict=True):
        if outcome.manager_id is not None:
            told.append(
                LeadAssigned(
                    lead_id=outcome.lead_id,
                    client_id=row["client_id"],
                    manager_id=outcome.manager_id,
                    epoch=outcome.epoch,
                    claim_until=until,
                    reason=outcome.why,
                    occurred_at=now,
                )
            )
        elif outcome.muted_until is None and row["was_left"] != "queued":
            told.append(
                LeadEscalated(
                    lead_id=outcome.lead_id,
                    client_id=row["client_id"],
                    epoch=outcome.epoch,
                    reason=outcome.why,
                    occurred_at=now,
                )
            )
    return told


async def next_waiting(connection: Connection) -> datetime | None:
    """When the first waiting lead is to be offered."""
    due: datetime | None = await connection.fetchval(
        "SELECT min(due_at) FROM leads WHERE state = 'waiting'"
    )
    return due


OFFERING = Timer("offering", next_waiting, offer_waiting_leads)
