"""Alerts that are due become messages: one for all that a person is to be told in the same way.

Whoever makes them has the person's row, so that two workers do not tell one person half each. What
is stale by then is not told. A text that cannot be made whole is written down as failed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from libs.shared import policies
from libs.shared.database import Connection
from libs.shared.ids import new_id
from libs.shared.timers import Timer, due_column
from services.notifications.default_templates import TemplateKey
from services.notifications.queueing import Message, queue
from services.notifications.reminder_policy import ReminderPolicy
from services.notifications.rendering import (
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
    await queue(tx, messages, now)
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
    address = first[first["channel"]]
    reason = "template_missing" if template is None else "no_address"
    message_id, about = first["message_id"] or new_id(), {"staff_id": first["staff_id"]}
    if template is not None and address is not None:
        values = _values(rows, template.key.language, policy.zone)
        try:
            text = render(template.text, values, channel=first["channel"])
            return Message.ready(message_id, template, address, text, **about)
        except TemplateRefused as refusal:
            reason = refusal.reason
    wanted = first["channel"], first["template"]
    return Message.failed(message_id, wanted, template, reason, **about)


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
