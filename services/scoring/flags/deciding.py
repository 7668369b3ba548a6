"""Settling flags: the rules are changed, the clients overridden for a time, or nothing is wrong.

An override is a day's boundary like any other: the client is in the analyst's segment until it
comes, and ages out of it at that midnight. Purchases meanwhile count as always. The decision, the
flags it settles and the clients it moves are one transaction.
"""

from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from typing import Literal
from uuid import UUID

from libs.shared.database import Connection
from libs.shared.errors import Conflict, Invalid
from libs.shared.events import Event
from libs.shared.ids import new_id
from services.scoring.flags.gathering import SegmentUnknown
from services.scoring.flags.policy import FlagPolicy
from services.scoring.rules import Rules
from services.scoring.rules_in_force import rules_in_force
from services.scoring.score_keeping import keep, load
from services.scoring.standing import Change

Verdict = Literal["rules_changed", "overridden", "rejected"]

_LOCK = """
    SELECT flag_id, client_id FROM segment_flags
    WHERE flag_id = ANY($1::uuid[]) AND decision_id IS NULL ORDER BY flag_id FOR UPDATE
"""
_DECIDE = """
    INSERT INTO segment_decisions (decision_id, verdict, note, rule_version, override_segment,
        override_until, decided_at, decided_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
# Kept for ever beside the one that holds now: the past is told with it (`past.py`).
_OVERRIDE = """
    WITH given AS (
        INSERT INTO segment_overrides (client_id, given_at, segment, until)
        SELECT client_id, $4, $2, $3 FROM unnest($1::uuid[]) AS c (client_id)
    )
    UPDATE scores SET override_segment = $2, override_until = $3
    WHERE client_id = ANY($1::uuid[])
"""


class FlagsNotOpen(Conflict):
    """Some of these flags are settled already, or do not exist."""

    code = "flags-not-open"
    ru = "Часть этих отметок уже решена или не существует."


class OverrideIncomplete(Invalid):
    """An override needs a segment and a day in the future up to which it holds."""

    code = "override-incomplete"
    ru = "Для ручного сегмента нужны сегмент и день в будущем, до которого он действует."


class OverrideTooLong(Invalid):
    """An override may not hold so long; see the policy `flags`."""

    code = "override-too-long"
    ru = "Ручной сегмент не может действовать так долго; см. политику flags."


async def decide(
    tx: Connection,
    flag_ids: Collection[UUID],
    policy: FlagPolicy,
    *,
    verdict: Verdict,
    note: str,
    by: str,
    now: datetime,
    rule_version: int | None = None,
    segment: str | None = None,
    until: date | None = None,
) -> UUID:
    """Settle flags, and override their clients' segment if that is the verdict.

    Raises:
        FlagsNotOpen, OverrideIncomplete, OverrideTooLong, SegmentUnknown: As they say.
    """
    rules = await rules_in_force(tx)
    if verdict == "overridden":
        _demand_override(rules, policy, segment, until, now)
    else:
        segment = until = None
    flags = await tx.fetch(_LOCK, list(flag_ids))
    if len(flags) != len(set(flag_ids)):
        known = {row["flag_id"] for row in flags}
        raise FlagsNotOpen(flag_ids=sorted(str(each) for each in set(flag_ids) - known))
    decision_id = new_id()
    await tx.execute(_DECIDE, decision_id, verdict, note, rule_version, segment, until, now, by)
    await tx.execute(
        "UPDATE segment_flags SET decision_id = $2 WHERE flag_id = ANY($1::uuid[])",
        list(flag_ids),
        decision_id,
    )
    if verdict == "overridden":
        await override(tx, [row["client_id"] for row in flags], segment, until, rules, now)
    return decision_id


async def override(
    tx: Connection,
    clients: Sequence[UUID],
    segment: str | None,
    until: date | None,
    rules: Rules,
    now: datetime,
) -> None:
    """Put clients into a segment up to a day, or back into their own; moves are said."""
    standings = await load(tx, clients, rules)
    moves: list[tuple[Change, Event | None]] = []
    for standing in standings.values():
        for change in standing.put_into(segment, until, rules=rules, at=now):
            moves.append((change, None))  # noqa: PERF401  # a pair for each
    await keep(tx, standings.values(), moves, rules)
    await tx.execute(_OVERRIDE, list(standings), segment, until, now)


def _demand_override(
    rules: Rules, policy: FlagPolicy, segment: str | None, until: date | None, now: datetime
) -> None:
    today = rules.day_of(now)
    if segment is None or until is None or until <= today:
        raise OverrideIncomplete(pointer="/override_until" if segment else "/override_segment")
    if segment not in rules.names:
        raise SegmentUnknown(pointer="/override_segment", known=sorted(rules.names))
    if until > today + timedelta(days=policy.longest_override_days):
        raise OverrideTooLong(pointer="/override_until", most_days=policy.longest_override_days)
