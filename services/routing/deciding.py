"""Deciding: a sitting over leads that are due, as the rows which are then written.

Nothing is written here. Whoever has the desk decides on what nobody can change any more; whoever
has only looked at it writes on condition that it stands as it was seen (`offering.py`).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import orjson

from libs.shared import context, outbox
from libs.shared.database import Connection, json_bytes
from libs.shared.events import Event, LeadAssigned, LeadEscalated
from libs.shared.ids import new_quick_id
from libs.shared.policies import bodies
from services.routing.choosing.floor import Floor
from services.routing.choosing.lead import FACTS as LEAD_FACTS
from services.routing.choosing.lead import LeadFacts
from services.routing.choosing.sitting import ENGINE, Outcome, outcomes_text, sit
from services.routing.claim_window import end_of_window
from services.routing.desk import Known, floor_now
from services.routing.policy import ClaimPolicy, MutingPolicy, PresencePolicy
from services.routing.terms import terms_at

FACTS = """l.lead_id, l.client_id, l.epoch, l.round, l.hops, l.asked, l.owner_id, l.is_returning,
        l.source, l.channel, l.region, l.city, l.phone_country, l.phone_region, l.domain,
        l.product, l.language, l.utm::text AS utm, l.amount_minor, l.complexity, l.kind,
        s.segment, l.was_left, l.received_at"""
"""What a sitting needs of `leads AS l` and `client_segments AS s`."""

_ASSIGNED = LeadAssigned.wire_type()
_WIDTH, _UTM = len(LEAD_FACTS), LEAD_FACTS.index("utm")

Row = tuple[Any, ...]


class Decided(NamedTuple):
    """What a sitting has decided, as rows.

    Attributes:
        known: The floor as it is when this is written; to be remembered then, not before.
        sitting: When, the end of the claim windows, the sitting's id, and the rest of its row.
        given: Offers.
        left: Leads that found nobody.
        loads, turns: As they are then, of those whose changed.
        told: Events.
        is_news: Whether anything has changed at all.
    """

    known: Known
    sitting: Row
    given: Sequence[Row]
    left: Sequence[Row]
    loads: Sequence[Row]
    turns: Sequence[Row]
    told: Sequence[Row]
    is_news: bool


async def decide(
    where: Connection,
    rows: Sequence[asyncpg.Record],
    now: datetime,
    *,
    freed: Sequence[UUID] = (),
    said: Sequence[Event] = (),
) -> Decided:
    """Decide who gets these leads, in their order.

    Args:
        rows: `FACTS` of each with the desk, which the caller has just taken or looked at.
        freed: Who holds a lead less than the tables say, once for each.
        said: What is to be said before.
    """
    claims, muting, presence = await bodies(where, ClaimPolicy, MutingPolicy, PresencePolicy)
    terms = terms_at(claims, muting, now)
    known = await _floor(where, rows[0], now, claims, presence)
    floor = known.floor
    for manager_id in freed:
        floor.seats[floor.place[manager_id]].load -= 1
    leads = [_facts(row) for row in rows]
    inputs = {**floor.begin_record(), "engine": ENGINE, "at": now, "terms": terms.record()}
    inputs |= {"rules": known.rules.version, "leads": [lead.record() for lead in leads]}
    outcomes = sit(floor, leads, known.rules, terms)
    known.count_offers(now)
    until = end_of_window(claims, now)
    again = now + timedelta(minutes=claims.queue_again_minutes)
    news = _news(outcomes, rows)
    return Decided(
        known=known,
        sitting=(
            *(now, until, new_quick_id(), ENGINE, known.rules.version, known.roster),
            *(json_bytes(inputs), outcomes_text(outcomes)),
        ),
        given=_given(known, outcomes),
        left=[
            (o.lead_id, o.why, n, o.muted_until or again, _left(o), news[n])
            for n, o in enumerate(outcomes)
            if o.manager_id is None
        ],
        loads=_loads(floor, outcomes, freed),
        turns=_turns(outcomes),
        told=[*map(outbox.row_of, said), *_told(outcomes, rows, now, until)],
        is_news=any(news) or bool(said),
    )


async def _floor(
    where: Connection,
    desk: asyncpg.Record,
    now: datetime,
    claims: ClaimPolicy,
    presence: PresencePolicy,
) -> Known:
    minutes = presence.sign_of_life_minutes
    holds = None if minutes is None else timedelta(minutes=minutes)
    return await floor_now(where, desk, now, sign_holds=holds, results_days=claims.results_days)


def _facts(row: asyncpg.Record) -> LeadFacts:
    values = list(row.values())[:_WIDTH]
    values[_UTM] = orjson.loads(values[_UTM]) if values[_UTM] else {}
    return LeadFacts(*values)


def _given(known: Known, outcomes: Sequence[Outcome]) -> list[tuple[Any, ...]]:
    names = known.rules.name_of
    return [
        (o.lead_id, o.manager_id, o.epoch, o.round, o.why, names(o.rule), o.team, o.strategy, n)
        for n, o in enumerate(outcomes)
        if o.manager_id is not None
    ]


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
) -> list[outbox.Row]:
    """Who was in the common queue already and stays there is no news; nor is a muted segment."""
    told: list[outbox.Row] = []
    for outcome, row in zip(outcomes, rows, strict=True):
        if outcome.manager_id is not None:
            told.append(assigned_row(outcome, row["client_id"], now, until))
        elif outcome.muted_until is None and row["was_left"] != "queued":
            escalated = LeadEscalated(
                lead_id=outcome.lead_id,
                client_id=row["client_id"],
                epoch=outcome.epoch,
                reason=outcome.why,
                occurred_at=now,
            )
            told.append(outbox.row_of(escalated))
    return told


def assigned_row(outcome: Outcome, client_id: UUID, now: datetime, until: datetime) -> outbox.Row:
    """The row of an offer's lead.assigned.

    Written out because making and validating the event takes three times as long, and every lead
    passes here. A test holds it to `outbox.row_of` of the validated event.
    """
    key = str(outcome.lead_id)
    data = orjson.dumps(
        {
            "occurred_at": now,
            "lead_id": key,
            "client_id": str(client_id),
            "manager_id": str(outcome.manager_id),
            "epoch": outcome.epoch,
            "claim_until": until,
            "reason": outcome.why,
        },
        option=orjson.OPT_UTC_Z,
    )
    thread = context.current()
    return (
        *(outbox.shard_of(key), new_quick_id(), LeadAssigned.topic, LeadAssigned.current_topic),
        *(key, _ASSIGNED, now, data),
        *(thread.correlation_id, thread.causation_id, thread.traceparent),
    )
