"""Alerts that are due become messages: one for all that a person is to be told in the same way.

Whoever makes them has the person's row, so that two workers do not tell one person half each. What
is stale by then is not told. A text that cannot be made whole is written down as failed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from libs.shared import policies
from libs.shared.database import Connection
from libs.shared.ids import new_id
from libs.shared.timers import Timer, due_column
from services.notifications.default_templates import TemplateKey
from services.notifications.reminder_policy import ReminderPolicy
from services.notifications.rendering import (
    Rendered,
    TemplateRefused,
    in_words,
    render,
    single_line,
)
from services.notifications.templates import TemplateInForce, for_language, in_force

PERSONS = 20
MOST_AT_ONCE = 20_000
NAMED = 10  # clients named in one message; the others are counted

_WORDS = {
    "ru": {"unknown": "новый клиент", "more": "и ещё {}", "nobody": "никто"},
    "en": {"unknown": "a new client", "more": "and {} more", "nobody": "nobody"},
}
_NO_PLACEHOLDERS = str.maketrans("[]{}", "()()")  # a name in brackets would look like one

_DUE = """
    WITH persons AS MATERIALIZED (
        SELECT * FROM staff WHERE EXISTS (SELECT FROM alerts
            WHERE alerts.staff_id = staff.staff_id AND due_at <= $1)
        ORDER BY staff_id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED)
    SELECT a.alert_id, a.kind, a.channel, a.template, a.message_id, a.since, a.stale_at,
        p.staff_id, p.name, p.is_active, p.language, p.email, p.second_channel,
        c.name AS client_name, m.name AS manager_name
    FROM alerts AS a JOIN persons AS p USING (staff_id)
    LEFT JOIN clients AS c ON c.client_id = a.client_id
    LEFT JOIN staff AS m ON m.staff_id = a.manager_id
    WHERE a.due_at <= $1 ORDER BY a.alert_id LIMIT $3 FOR UPDATE OF a
"""
_SETTLE = """
    UPDATE alerts AS a SET state = s.state, reason = s.reason, message_id = s.message_id,
        due_at = NULL, changed_at = $5
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[])
        AS s (alert_id, state, reason, message_id) WHERE a.alert_id = s.alert_id
"""
_QUEUE = """
    INSERT INTO deliveries (message_id, staff_id, channel, template, template_version, language,
        address, subject, body, state, reason, due_at, settled_at, created_at)
    SELECT t.*, CASE WHEN t.state = 'queued' THEN $12::timestamptz END,
        CASE WHEN t.state <> 'queued' THEN $12::timestamptz END, $12::timestamptz
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::integer[], $6::text[],
        $7::text[], $8::text[], $9::text[], $10::text[], $11::text[]) AS t (message_id, staff_id,
        channel, template, template_version, language, address, subject, body, state, reason)
    ON CONFLICT (message_id) DO UPDATE SET template_version = excluded.template_version,
        language = excluded.language, address = excluded.address, subject = excluded.subject,
        body = excluded.body, state = excluded.state, reason = excluded.reason,
        due_at = excluded.due_at, settled_at = excluded.settled_at, attempts = 0
"""


class Message(NamedTuple):
    """A row of `deliveries`, its members in the order of the statement."""

    message_id: UUID
    staff_id: UUID
    channel: str
    template: str
    template_version: int
    language: str
    address: str | None
    subject: str
    body: str
    state: str
    reason: str | None


async def queue_due_alerts(tx: Connection, now: datetime) -> int:
    """Make messages of the alerts that are due, for at most `PERSONS`; how many were due."""
    due = await tx.fetch(_DUE, now, PERSONS, MOST_AT_ONCE)
    if not due:
        return 0
    policy = (await policies.current(tx, ReminderPolicy)).body
    templates = await in_force(tx, list({row["template"] for row in due}))
    settled: list[tuple[Any, ...]] = []
    messages: list[Message] = []
    told: dict[tuple[Any, ...], list[asyncpg.Record]] = defaultdict(list)
    for row in due:
        if reason := _not_any_more(row, now):
            settled.append((row["alert_id"], "cancelled", reason, None))
        else:  # what is tried once more keeps its message
            way = row["kind"], row["channel"], row["template"], row["message_id"]
            told[row["staff_id"], *way].append(row)
    for rows in told.values():
        message = _message(rows, templates, policy)
        messages.append(message)
        state = "sending" if message.state == "queued" else "failed"
        settled += [(r["alert_id"], state, message.reason, message.message_id) for r in rows]
    if messages:
        await tx.execute(_QUEUE, *_columns(messages), now)
    await tx.execute(_SETTLE, *_columns(settled), now)
    return len(due)


def _not_any_more(row: asyncpg.Record, now: datetime) -> str | None:
    """Why somebody is not told any more; None while they are."""
    if not row["is_active"]:
        return "recipient_inactive"
    return "too_late" if row["stale_at"] <= now else None


def _message(
    rows: Sequence[asyncpg.Record],
    templates: Mapping[TemplateKey, TemplateInForce],
    policy: ReminderPolicy,
) -> Message:
    """One message for all of these, which go to one person by one channel."""
    first = rows[0]
    languages = (first["language"], policy.default_language)
    template = for_language(templates, first["template"], first["channel"], languages)
    address, text, reason = first[first["channel"]], Rendered("", ""), None
    if template is None:
        reason = "template_missing"
    elif address is None:
        reason = "no_address"
    else:
        values = _values(rows, template.key.language, policy.zone)
        try:
            text = render(template.text, values, channel=first["channel"])
        except TemplateRefused as refusal:
            reason = refusal.reason
    return Message(
        first["message_id"] or new_id(),
        first["staff_id"],
        first["channel"],
        first["template"],
        template.version if template is not None else 0,
        template.key.language if template is not None else "",
        None if reason else address,
        text.subject,
        text.body,
        "failed" if reason else "queued",
        reason,
    )


def _values(rows: Sequence[asyncpg.Record], language: str, zone: str) -> dict[str, str]:
    words = _WORDS.get(language, _WORDS["en"])
    managers = dict.fromkeys(_plain(r["manager_name"]) for r in rows if r["manager_name"])
    clients = [_plain(row["client_name"] or "") or words["unknown"] for row in rows]
    return {
        "recipient_name": _plain(rows[0]["name"]),
        "count": str(len(rows)),
        "clients": _listed(clients, words["more"]),
        "managers": _listed(managers, words["more"]) or words["nobody"],
        "since": in_words(min(row["since"] for row in rows), zone, language),
    }


def _plain(name: str) -> str:
    return single_line(name).translate(_NO_PLACEHOLDERS)


def _listed(names: Iterable[str], more: str) -> str:
    every = list(names)
    shown = ", ".join(every[:NAMED])
    return f"{shown} {more.format(len(every) - NAMED)}" if len(every) > NAMED else shown


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


STAFF_ALERTS = Timer("staff_alerts", due_column("alerts"), queue_due_alerts)
