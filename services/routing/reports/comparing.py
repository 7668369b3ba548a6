"""The days of the past as they are stored, for `what_if.py`, and both ways beside each other."""

import asyncio
from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from libs.shared.database import Connection
from services.routing.choosing.floor import Floor
from services.routing.choosing.lead import FACTS, LeadFacts
from services.routing.choosing.presence import Facts
from services.routing.choosing.rule_set import Prepared
from services.routing.desk import calendar_of, seat_of
from services.routing.policy import ClaimPolicy, MutingPolicy
from services.routing.reports.what_if import Days, PastLead, Played, Tally, play

MOST_LEADS = 20_000
USUAL_HOLD = timedelta(days=1)

_STILL = ("epoch", "round", "hops", "asked", "segment", "utm")
_LEADS = f"""
    SELECT {", ".join("l." + name for name in FACTS if name not in _STILL)}, l.utm::text AS utm,
        s.segment, l.received_at, l.claimed_at, l.ended_at
    FROM leads AS l LEFT JOIN client_segments AS s USING (client_id)
    WHERE l.received_at >= $1 AND l.received_at < $2 ORDER BY l.received_at, l.lead_id LIMIT $3
"""
_MANAGERS = """
    SELECT manager_id, weight, capacity, hourly_limit, daily_limit, monthly_limit,
        languages, zones, skills::text AS skills, calendar::text AS calendar, created_at
    FROM managers WHERE is_active ORDER BY manager_id
"""
_SHIFTS = """
    SELECT manager_id, starts_at, ends_at FROM shifts
    WHERE (ends_at IS NULL OR ends_at > $1) AND starts_at < $2
"""
_ABSENCES = """
    SELECT manager_id, starts_at, ends_at, is_sick FROM absences
    WHERE ends_at > $1 AND starts_at < $2
    UNION ALL SELECT manager_id, starts_at, ends_at, false FROM pauses
    WHERE ends_at > $1 AND starts_at < $2
    UNION ALL SELECT manager_id, paused_at, coalesce(paused_until, $2), false FROM managers
    WHERE paused_at < $2 AND (paused_until > $1 OR paused_until IS NULL)
"""
_TEAMS = "SELECT t.team, m.manager_id FROM teams AS t LEFT JOIN team_members AS m USING (team)"
_BEHAVED = """
    SELECT manager_id, CASE WHEN ended_how = 'claimed' THEN ended_at - offered_at END AS took
    FROM offers WHERE offered_at >= $1 AND offered_at < $2 AND ended_how IN ('claimed', 'lapsed')
    ORDER BY offered_at, lead_id
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both ways, beside each other."""

    leads: int
    is_cut: bool
    in_force: Played
    draft: Played


async def compare(
    tx: Connection,
    *,
    draft: Prepared,
    in_force: Prepared,
    claims: ClaimPolicy,
    muting: MutingPolicy,
    since: datetime,
    until: datetime,
) -> Comparison:
    """Play the time from `since` to `until` by both rule sets; at most `MOST_LEADS` leads."""
    rows = await tx.fetch(_LEADS, since, until, MOST_LEADS + 1)
    leads = [_past(row) for row in rows[:MOST_LEADS]]
    managers = await tx.fetch(_MANAGERS)
    facts = await _facts(tx, managers, since, until)
    behaved: dict[UUID, list[timedelta | None]] = defaultdict(list)
    for row in await tx.fetch(_BEHAVED, since, until):
        behaved[row["manager_id"]].append(row["took"])
    teams: dict[str, list[UUID]] = defaultdict(list)
    for row in await tx.fetch(_TEAMS):
        teams[row["team"]] += [row["manager_id"]] if row["manager_id"] else []
    played = []
    for rules in (in_force, draft):
        floor = Floor([seat_of(row) for row in managers], teams)
        days = Days(deepcopy(leads), facts, behaved, claims=claims, muting=muting, until=until)
        played.append(await asyncio.to_thread(play, days, floor, rules))
    return Comparison(len(leads), len(rows) > MOST_LEADS, played[0], played[1])


def _past(row: Any) -> PastLead:
    told = {name: row[name] for name in FACTS if name not in _STILL}
    utm = orjson.loads(row["utm"]) if row["utm"] else {}
    held = USUAL_HOLD
    if row["claimed_at"] and row["ended_at"]:
        held = row["ended_at"] - row["claimed_at"]
    facts = LeadFacts(**told, utm=utm, segment=row["segment"])
    return PastLead(facts, row["received_at"], held)


async def _facts(
    tx: Connection, managers: list[Any], since: datetime, until: datetime
) -> dict[UUID, Facts]:
    shifts: dict[UUID, list[Any]] = defaultdict(list)
    for row in await tx.fetch(_SHIFTS, since, until):
        shifts[row["manager_id"]].append((row["starts_at"], row["ends_at"]))
    absences: dict[UUID, list[Any]] = defaultdict(list)
    for row in await tx.fetch(_ABSENCES, since, until):
        absences[row["manager_id"]].append((row["starts_at"], row["ends_at"], row["is_sick"]))
    return {
        row["manager_id"]: Facts(
            calendar=calendar_of(row["calendar"]),
            shifts=tuple(shifts[row["manager_id"]]),
            absences=tuple(absences[row["manager_id"]]),
        )
        for row in managers
    }


def line_of(before: Tally, after: Tally) -> dict[str, Any]:
    """How a tally differs: the draft's figure and its change from the rules in force."""
    return {
        "leads": after.leads,
        "leads_change": after.leads - before.leads,
        "most_open": after.most_open,
        "most_open_change": after.most_open - before.most_open,
        "mean_wait_s": round(after.mean_wait_s, 1),
        "mean_wait_s_change": round(after.mean_wait_s - before.mean_wait_s, 1),
        "missed": after.missed,
        "missed_change": after.missed - before.missed,
        "unanswered": after.unanswered,
        "unanswered_change": after.unanswered - before.unanswered,
    }
