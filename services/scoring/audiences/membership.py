"""Who belongs to which audience, kept true at every moment.

Whoever plans touches anew (after a purchase, a touch, a change of the card or the segment) has the
same clients judged here. Days that pass are due rows: each member's row says when a condition about
days may turn. A new or changed audience is counted in stretches of all clients. An audience is
judged by one transaction at a time, so a client enters and leaves in order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from libs.shared import outbox
from libs.shared.database import Connection
from libs.shared.events import AudienceEntered, AudienceLeft
from libs.shared.timers import Timer, due_column
from services.scoring.audiences.conditions import (
    Asked,
    AudienceRule,
    Mute,
    uses_average,
    uses_messages,
    uses_pages,
)
from services.scoring.rules import Rules
from services.scoring.rules_in_force import rules_in_force

BATCH = 1_000
STRETCH = 2_000
JUDGING = 0x4155  # first key of the advisory locks
FIRST = UUID(int=0)

_rules = TypeAdapter(AudienceRule)

_JUDGE = """
    WITH facts AS (
        SELECT client_id, segment, recency_score, frequency_score, monetary_score, last_day,
            frequency, monetary_minor, last_touch_at, kind, status, city, language, created_at,
            coalesce(tags, '{{}}') AS tags, coalesce(is_archived, false) AS is_archived,
            m.*, v.*
        FROM unnest({clients}) AS clients_asked (client_id)
        LEFT JOIN scores USING (client_id)
        LEFT JOIN touches USING (client_id) LEFT JOIN clients USING (client_id)
        CROSS JOIN LATERAL ({messages}) AS m CROSS JOIN LATERAL ({pages}) AS v
    )
    SELECT f.client_id, {is_open} AND NOT is_archived AND coalesce({condition}, false),
        (SELECT min(day) FROM unnest(ARRAY[{days}]::date[]) AS day WHERE day > {today}),
        coalesce(m.is_in, false), coalesce(m.seq, 0)
    FROM facts AS f LEFT JOIN audience_members AS m
        ON m.client_id = f.client_id AND m.audience_id = {audience}
"""
# In a row: since the last of those that were opened. Read only where a condition goes by it.
_MESSAGES = """
    SELECT max(sent_at) AS last_sent_at, max(opened_at) AS last_opened_at,
        count(opened_at) AS opened, count(*) FILTER (WHERE sent_at > coalesce((SELECT max(sent_at)
            FROM messages AS o WHERE o.client_id = clients_asked.client_id
                AND o.opened_at IS NOT NULL), '-infinity')) AS unopened
    FROM messages WHERE messages.client_id = clients_asked.client_id
"""
_NO_MESSAGES = "SELECT 0 AS opened, 0 AS unopened"
_PAGES = """
    SELECT max(last_viewed_at) AS last_page_at FROM client_pages
    WHERE client_pages.client_id = clients_asked.client_id
"""
_NO_PAGES = "SELECT NULL::timestamptz AS last_page_at"
_KEEP = """
    INSERT INTO audience_members (audience_id, client_id, is_in, seq, due_at, changed_at)
    SELECT $1, * FROM unnest($2::uuid[], $3::boolean[], $4::int[], $5::timestamptz[],
        $6::timestamptz[])
    ON CONFLICT (audience_id, client_id) DO UPDATE SET is_in = excluded.is_in, seq = excluded.seq,
        due_at = excluded.due_at,
        changed_at = coalesce(excluded.changed_at, audience_members.changed_at)
"""
_COUNTED = """
    UPDATE audiences SET after_client_id = $2, due_at = $3, counted_at = $4,
        average_minor = coalesce($5, average_minor) WHERE audience_id = $1
"""
_EVERYBODY = """
    SELECT client_id FROM (
        (SELECT client_id FROM scores WHERE client_id > $1 ORDER BY client_id LIMIT $2) UNION
        (SELECT client_id FROM clients WHERE client_id > $1 ORDER BY client_id LIMIT $2)
    ) AS known ORDER BY client_id LIMIT $2
"""
_AVERAGE = "SELECT sum(monetary_minor)::float8 / nullif(sum(frequency), 0) FROM scores"


@dataclass(frozen=True, slots=True)
class Audience:
    """An audience in use."""

    audience_id: int
    version: int
    rule: AudienceRule
    average_minor: float
    is_on: bool

    @classmethod
    def of(cls, row: asyncpg.Record) -> "Audience":
        return cls(
            row["audience_id"],
            row["version"],
            _rules.validate_python(row["body"]),
            row["average_minor"],
            row["is_on"],
        )


async def judge_changed(
    tx: Connection, clients: Iterable[UUID], rules: Rules, now: datetime
) -> None:
    """Judge clients of whom something has changed, for every audience."""
    wanted = sorted(set(clients))
    for row in await tx.fetch("SELECT * FROM audiences WHERE is_on ORDER BY audience_id"):
        await _judge(tx, Audience.of(row), wanted, rules, now)


async def _judge(
    tx: Connection, audience: Audience, clients: Sequence[UUID], rules: Rules, now: datetime
) -> None:
    await tx.execute("SELECT pg_advisory_xact_lock($1, $2)", JUDGING, audience.audience_id)
    today = rules.day_of(now)
    asked = Asked(today, rules.rule_set.zone, audience.average_minor)
    statement = _JUDGE.format(
        condition=audience.rule.condition.sql(asked),
        days=", ".join(asked.turning_days),
        messages=_MESSAGES if uses_messages(audience.rule.condition) else _NO_MESSAGES,
        pages=_PAGES if uses_pages(audience.rule.condition) else _NO_PAGES,
        today=asked.today,
        is_open=str(audience.is_on and not _is_muted(audience.rule.mute, today)).lower(),
        clients=asked.add(list(clients), "uuid[]"),
        audience=asked.add(audience.audience_id, "int"),
    )
    kept = []
    events: list[AudienceEntered | AudienceLeft] = []
    for client_id, belongs, turns_on, was_in, seq in await tx.fetch(
        _all_used(statement, asked), *asked.values
    ):
        turned = belongs != was_in
        due_at = rules.start_of(turns_on) if turns_on else None
        if turned:
            event = AudienceEntered if belongs else AudienceLeft
            events.append(
                event(
                    client_id=client_id,
                    audience=audience.rule.code,
                    audience_version=audience.version,
                    seq=seq + 1,
                    occurred_at=now,
                )
            )
        if turned or due_at or seq:
            kept.append((client_id, belongs, seq + turned, due_at, now if turned else None))
    if kept:
        await tx.execute(_KEEP, audience.audience_id, *map(list, zip(*kept, strict=True)))
    await outbox.add_all(tx, events)


def _all_used(statement: str, asked: Asked) -> str:
    """PostgreSQL wants to see every parameter; a condition may use neither day nor zone."""
    return f"{statement} WHERE {asked.today} IS NOT NULL AND {asked.zone} IS NOT NULL"


def _is_muted(mute: Mute | None, today: date) -> bool:
    return mute is not None and mute.first_day <= today <= mute.last_day


async def turn_due_members(tx: Connection, now: datetime) -> int:
    """Judge those whose day has come; at most `BATCH`.

    Their rows are not locked: whoever holds the audience may be about to write them.
    """
    due = await tx.fetch(
        "SELECT audience_id, client_id FROM audience_members WHERE due_at <= $1 ORDER BY due_at"
        " LIMIT $2",
        now,
        BATCH,
    )
    if not due:
        return 0
    rules = await rules_in_force(tx)
    for audience_id in sorted({row["audience_id"] for row in due}):
        clients = [row["client_id"] for row in due if row["audience_id"] == audience_id]
        row = await tx.fetchrow("SELECT * FROM audiences WHERE audience_id = $1", audience_id)
        assert row is not None  # noqa: S101  # members have a foreign key
        await _judge(tx, Audience.of(row), clients, rules, now)
    return len(due)


async def count_audience(tx: Connection, now: datetime) -> int:
    """Go on counting an audience that is new, changed, or begins or ceases to be muted."""
    row = await tx.fetchrow(
        "SELECT * FROM audiences WHERE due_at <= $1 ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED",
        now,
    )
    if row is None:
        return 0
    rules = await rules_in_force(tx)
    audience = Audience.of(row)
    average = None
    if row["after_client_id"] is None:
        average = await tx.fetchval(_AVERAGE) or 0.0
        audience = replace(audience, average_minor=average)
    found = await tx.fetch(_EVERYBODY, row["after_client_id"] or FIRST, STRETCH)
    clients = [each["client_id"] for each in found]
    if clients:
        await _judge(tx, audience, clients, rules, now)
    ends = len(clients) < STRETCH
    await tx.execute(
        _COUNTED,
        audience.audience_id,
        None if ends else clients[-1],
        _next_count(audience.rule, rules, now) if ends else row["due_at"],
        now if ends else row["counted_at"],
        average,
    )
    return max(len(clients), 1)


def _next_count(rule: AudienceRule, rules: Rules, now: datetime) -> datetime | None:
    """When everybody is judged anew: tomorrow for an average, where muting begins or ends."""
    today = rules.day_of(now)
    turns = [today + timedelta(1)] if uses_average(rule.condition) else []
    if rule.mute is not None:
        turns += [rule.mute.first_day, rule.mute.last_day + timedelta(1)]
    return min((rules.start_of(day) for day in turns if day > today), default=None)


AUDIENCE_CLOCK = Timer(
    "audience_clock", due_column("audience_members"), turn_due_members, is_patient=True
)
AUDIENCE_COUNT = Timer("audience_count", due_column("audiences"), count_audience)
