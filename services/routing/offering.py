"""Offering leads: whose turn it is gets the lead, with a window to claim it.

Leads are taken in the order in which they became due, each gets one offer with the next epoch, and
who finds nobody left goes into the common queue. Everything about a batch is one transaction: the
lead's row, the offer, the turn and the event. A crash leaves the leads waiting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from libs.shared import outbox
from libs.shared.database import Connection
from libs.shared.events import Event, LeadAssigned, LeadEscalated
from libs.shared.policies import current
from libs.shared.timers import Timer
from services.routing.policy import ClaimPolicy
from services.routing.round_robin import Candidate, choose, give_turn
from services.routing.shifts import on_shift

BATCH = 500

_WAITING = """
    SELECT lead_id FROM leads WHERE state = 'waiting' AND due_at <= $1
    ORDER BY due_at, lead_id LIMIT $2 FOR UPDATE SKIP LOCKED
"""
_READ = """
    SELECT lead_id, client_id, owner_id, epoch, round, asked FROM leads
    WHERE lead_id = ANY($1::uuid[]) ORDER BY received_at, lead_id
"""
_LOADS = """
    SELECT manager_id, count(*) AS open_leads FROM leads
    WHERE manager_id = ANY($1::uuid[]) GROUP BY manager_id
"""
_OFFER = """
    UPDATE leads SET state = 'offered', manager_id = o.manager_id, epoch = o.epoch,
        round = o.round, due_at = $5, claimed_at = NULL,
        asked = CASE WHEN o.round > leads.round THEN '{}' ELSE leads.asked END
    FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[]) AS o (lead_id, manager_id, epoch,
        round)
    WHERE leads.lead_id = o.lead_id
"""
_REMEMBER = """
    INSERT INTO offers (lead_id, manager_id, epoch, why, offered_at, claim_until)
    SELECT *, $5::timestamptz, $6::timestamptz
    FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[])
"""
_QUEUE = """
    UPDATE leads SET state = 'queued', manager_id = NULL, due_at = NULL
    WHERE lead_id = ANY($1::uuid[])
"""
_TURNS = """
    UPDATE managers SET last_turn = t.turn FROM unnest($1::uuid[], $2::bigint[]) AS t (id, turn)
    WHERE manager_id = t.id
"""


@dataclass(frozen=True, slots=True)
class Decision:
    """Who gets a lead, and why; `manager_id` None: nobody is left."""

    lead: asyncpg.Record
    manager_id: UUID | None
    round: int
    why: str


async def offer_waiting_leads(tx: Connection, now: datetime) -> int:
    """Offer what is due to be offered; at most `BATCH` leads."""
    waiting = [row["lead_id"] for row in await tx.fetch(_WAITING, now, BATCH)]
    if waiting:
        await offer(tx, waiting, now)
    return len(waiting)


async def offer(tx: Connection, lead_ids: Sequence[UUID], now: datetime) -> None:
    """Offer leads to whose turn it is, or put them into the common queue.

    Args:
        lead_ids: Locked by the caller; nobody holds them.
    """
    policy = (await current(tx, ClaimPolicy)).body
    leads = await tx.fetch(_READ, lead_ids)
    candidates = await free_managers(tx, now)
    decisions = [decide(lead, candidates, policy) for lead in leads]
    given = [d for d in decisions if d.manager_id is not None]
    until = now + timedelta(minutes=policy.claim_window_minutes)
    await _write_offers(tx, given, candidates, now, until)
    left = [d.lead["lead_id"] for d in decisions if d.manager_id is None]
    if left:
        await tx.execute(_QUEUE, left)
    await outbox.add_all(tx, [_told(decision, now, until) for decision in decisions])


async def free_managers(tx: Connection, now: datetime) -> list[Candidate]:
    """Managers on shift with the number of leads they hold."""
    managers = await on_shift(tx, now)
    loads = {
        row["manager_id"]: row["open_leads"]
        for row in await tx.fetch(_LOADS, [m["manager_id"] for m in managers])
    }
    return [
        Candidate(m["manager_id"], m["last_turn"], loads.get(m["manager_id"], 0)) for m in managers
    ]


def decide(lead: asyncpg.Record, candidates: Sequence[Candidate], policy: ClaimPolicy) -> Decision:
    """Choose for one lead, and give the chosen their turn."""
    owner = lead["owner_id"] if policy.returning_client_goes_to_owner else None
    round_, asked = lead["round"], set(lead["asked"])
    chosen = choose(candidates, asked=asked, most_open_leads=policy.most_open_leads, owner_id=owner)
    if chosen is None and asked and round_ < policy.rounds:
        round_ += 1
        chosen = choose(candidates, asked=(), most_open_leads=policy.most_open_leads)
    if chosen is None:
        why = "nobody is on shift" if not candidates else "everybody on shift was asked or is full"
        return Decision(lead, None, round_, why)
    turn = give_turn(chosen, candidates)
    why = "the client's own manager" if chosen.manager_id == owner else f"round robin, turn {turn}"
    return Decision(lead, chosen.manager_id, round_, why)


async def _write_offers(
    tx: Connection,
    given: Sequence[Decision],
    candidates: Sequence[Candidate],
    now: datetime,
    until: datetime,
) -> None:
    if not given:
        return
    leads = [d.lead["lead_id"] for d in given]
    managers = [d.manager_id for d in given]
    epochs = [d.lead["epoch"] + 1 for d in given]
    await tx.execute(_OFFER, leads, managers, epochs, [d.round for d in given], until)
    await tx.execute(_REMEMBER, leads, managers, epochs, [d.why for d in given], now, until)
    await tx.execute(_TURNS, [c.manager_id for c in candidates], [c.last_turn for c in candidates])


def _told(decision: Decision, now: datetime, until: datetime) -> Event:
    lead = decision.lead
    if decision.manager_id is None:
        return LeadEscalated(
            lead_id=lead["lead_id"],
            client_id=lead["client_id"],
            epoch=lead["epoch"],
            reason=decision.why,
            occurred_at=now,
        )
    return LeadAssigned(
        lead_id=lead["lead_id"],
        client_id=lead["client_id"],
        manager_id=decision.manager_id,
        epoch=lead["epoch"] + 1,
        claim_until=until,
        reason=decision.why,
        occurred_at=now,
    )


async def next_waiting(connection: Connection) -> datetime | None:
    """When the first waiting lead is to be offered."""
    due: datetime | None = await connection.fetchval(
        "SELECT min(due_at) FROM leads WHERE state = 'waiting'"
    )
    return due


OFFERING = Timer("offering", next_waiting, offer_waiting_leads)
