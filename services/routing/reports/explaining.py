"""Why a lead went where it did, years later; and the proof that the record is true.

Explanations are read from the record of the sitting. Replaying makes the decision again from its
recorded inputs and compares the bytes.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs.shared.database import Connection
from services.routing.choosing.rule_set import prepared
from services.routing.choosing.sitting import ENGINES, replayed
from services.routing.choosing.words import Explanation, explained

BATCH = 200

_DECISIONS = """
    SELECT d.place, s.inputs, s.outcomes, r.body AS roster, s.rule_version, v.body::text AS rules
    FROM (SELECT sitting_id, place, offered_at AS at FROM offers
            WHERE lead_id = $1 AND sitting_id IS NOT NULL
        UNION ALL SELECT sitting_id, place, at FROM left_waiting WHERE lead_id = $1) AS d
    JOIN sittings AS s USING (sitting_id) JOIN rosters AS r USING (roster)
    JOIN rule_sets AS v ON v.version = s.rule_version
    ORDER BY d.at, sitting_id
"""
_NAMES = "SELECT manager_id, name FROM managers"
_SITTINGS = """
    SELECT s.sitting_id, s.at, s.engine, s.inputs, s.outcomes, r.body AS roster, s.rule_version,
        v.body::text AS rules
    FROM sittings AS s JOIN rosters AS r USING (roster)
    JOIN rule_sets AS v ON v.version = s.rule_version
    WHERE s.at >= $1 AND s.at < $2 AND s.sitting_id > $3 ORDER BY s.sitting_id LIMIT $4
"""


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many sittings were made again, and which came out otherwise.

    Attributes:
        skipped: Made by an engine that is not known any more, or not yet.
    """

    checked: int
    skipped: int
    differing: list[UUID]


async def explain(tx: Connection, lead_id: UUID) -> list[Explanation]:
    """Every decision about a lead, in their order."""
    names = {row["manager_id"]: row["name"] for row in await tx.fetch(_NAMES)}
    return [
        explained(
            row["roster"],
            row["inputs"],
            row["outcomes"],
            row["place"],
            prepared(row["rule_version"], row["rules"]),
            names,
        )
        for row in await tx.fetch(_DECISIONS, lead_id)
    ]


async def replay(tx: Connection, since: datetime, until: datetime) -> Replayed:
    """Make every decision of a time again from its record."""
    checked = skipped = 0
    differing: list[UUID] = []
    last = UUID(int=0)
    while rows := await tx.fetch(_SITTINGS, since, until, last, BATCH):
        for row in rows:
            await asyncio.sleep(0)  # others are served meanwhile
            if row["engine"] not in ENGINES:
                skipped += 1
                continue
            checked += 1
            rules = prepared(row["rule_version"], row["rules"])
            if replayed(row["roster"], row["inputs"], rules) != row["outcomes"]:
                differing.append(row["sitting_id"])
        last = rows[-1]["sitting_id"]
    return Replayed(checked, skipped, differing)
