"""A reminder that is due becomes a message in the delivery ledger.

In one transaction: the meeting is looked at once more (still planned, at this very version, not
begun), the text is made, the delivery is queued and the reminder is being sent. A text that cannot
be made whole is written down as failed and nothing goes out. Actually sending is in `sending.py`.
A reminder whose time passed while no worker ran still goes out if the meeting has not begun.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import asyncpg

from libs.shared import outbox, policies
from libs.shared.database import Connection
from libs.shared.events import Event, MessageFailed, ReminderCancelled
from libs.shared.ids import new_id
from libs.shared.timers import Timer, due_column
from services.notifications.default_templates import TemplateKey
from services.notifications.queueing import Message, queue
from services.notifications.reminder_policy import ReminderPolicy
from services.notifications.rendering import (
    KIND_LABELS,
    Rendered,
    TemplateRefused,
    in_words,
    render,
    single_line,
)
from services.notifications.templates import TemplateInForce, for_language, in_force

BATCH = 500
CARD_WAIT = timedelta(minutes=1)  # the card comes by another topic and may be behind
_ABOUT = ("reminder_id", "client_id", "interaction_id", "interaction_version")

_DUE = """
    SELECT r.reminder_id, r.interaction_id, r.interaction_version, r.client_id, r.channel,
        r.template, m.state AS meeting_state, m.version AS meeting_version, m.starts_at, m.kind,
        m.topic, c.client_id AS card, c.name, c.email, c.phone, c.messengers, c.language,
        d.message_id
    FROM (SELECT * FROM reminders WHERE due_at <= $1 ORDER BY due_at LIMIT $2
        FOR UPDATE SKIP LOCKED) AS r
    JOIN meetings AS m USING (interaction_id) LEFT JOIN clients AS c ON c.client_id = r.client_id
    LEFT JOIN deliveries AS d ON d.reminder_id = r.reminder_id
"""

_WAIT = "UPDATE reminders SET due_at = $2 WHERE reminder_id = ANY($1::uuid[])"

_SETTLE = """
    UPDATE reminders AS r SET state = s.state, reason = s.reason, due_at = NULL, changed_at = $4
    FROM unnest($1::uuid[], $2::text[], $3::text[]) AS s (reminder_id, state, reason)
    WHERE r.reminder_id = s.reminder_id
"""


class Composed(NamedTuple):
    """A text with where it goes and what it was made of."""

    template: TemplateInForce
    address: str
    text: Rendered


class CannotCompose(Exception):
    """No message can be made; the reason is written down and nothing goes out."""

    def __init__(self, reason: str, template: TemplateInForce | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.template = template


class Composer:
    """Makes the messages of one batch.

    Args:
        reschedule_url: With `{interaction_id}` in it; empty: no link.
    """

    def __init__(
        self,
        policy: ReminderPolicy,
        templates: Mapping[TemplateKey, TemplateInForce],
        reschedule_url: str,
    ) -> None:
        self._policy = policy
        self._templates = templates
        self._reschedule_url = reschedule_url

    def compose(self, due: asyncpg.Record) -> Composed:
        """The message of a reminder, joined with its meeting and card.

        Raises:
            CannotCompose: No address, no template, or the template is refused.
        """
        policy = self._policy
        template = for_language(
            self._templates,
            due["template"],
            due["channel"],
            (due["language"], policy.default_language),
        )
        if template is None:
            raise CannotCompose("template_missing")
        address = self._address(due)
        if address is None:
            raise CannotCompose("no_address", template)
        language = template.key.language
        labels = KIND_LABELS.get(language, KIND_LABELS["en"])
        values = {
            "client_name": single_line(due["name"]),
            "topic": single_line(due["topic"]) or labels.get(due["kind"]),
            "kind": due["kind"],
            "starts_at": in_words(due["starts_at"], policy.zone, language),
            "reschedule_link": self._reschedule_url.replace(
                "{interaction_id}", str(due["interaction_id"])
            ),
        }
        try:
            text = render(template.text, values, channel=due["channel"])
        except TemplateRefused as refusal:
            raise CannotCompose(refusal.reason, template) from None
        return Composed(template, address, text)

    def _address(self, due: asyncpg.Record) -> str | None:
        if due["channel"] == "email":
            return due["email"] or None
        for way in self._policy.second_channel_order:
            profile = due["phone"] if way == "phone" else (due["messengers"] or {}).get(way)
            if profile:
                return profile if way == "phone" else f"{way}:{profile}"
        return None


async def queue_due_reminders(tx: Connection, now: datetime, *, reschedule_url: str = "") -> int:
    """Make messages of the reminders that are due; at most `BATCH` of them.

    Any number of workers: each takes the rows that no other holds. A crash leaves them due.

    Returns:
        How many were due.
    """
    due = await tx.fetch(_DUE, now, BATCH)
    if not due:
        return 0
    policy = (await policies.current(tx, ReminderPolicy)).body
    templates = await in_force(tx, list({row["template"] for row in due}))
    composer = Composer(policy, templates, reschedule_url)
    over = [row for row in due if _no_longer(row, now)]
    standing = [row for row in due if not _no_longer(row, now)]
    waiting = [row["reminder_id"] for row in standing if row["card"] is None]
    made = [(row, _message(composer, row)) for row in standing if row["card"] is not None]
    if waiting:
        await tx.execute(_WAIT, waiting, now + CARD_WAIT)
    await queue(tx, [message for _, message in made], now)
    await _settle(tx, over, made, now)
    return len(due)


def _no_longer(row: asyncpg.Record, now: datetime) -> str | None:
    """Why a reminder must not go out any more; None while it may."""
    if row["meeting_state"] != "planned" or row["meeting_version"] != row["interaction_version"]:
        return "superseded"
    return "meeting_began" if row["starts_at"] <= now else None


def _message(composer: Composer, row: asyncpg.Record) -> Message:
    message_id = row["message_id"] or new_id()  # there is one when it is tried once more
    about = {name: row[name] for name in _ABOUT}
    try:
        return Message.ready(message_id, *composer.compose(row), **about)
    except CannotCompose as failure:
        wanted = row["channel"], row["template"]
        return Message.failed(message_id, wanted, failure.template, failure.reason, **about)


async def _settle(
    tx: Connection,
    over: Sequence[asyncpg.Record],
    made: Sequence[tuple[asyncpg.Record, Message]],
    now: datetime,
) -> None:
    """Write down what became of the reminders, and say it."""
    settled: list[tuple[UUID, str, str | None]] = [
        (row["reminder_id"], "sending" if one.state == "queued" else "failed", one.reason)
        for row, one in made
    ]
    said: list[Event] = [
        _failure(row, one.message_id, one.reason, now) for row, one in made if one.reason
    ]
    for row in over:
        reason = _no_longer(row, now) or ""
        settled.append((row["reminder_id"], "cancelled", reason))
        said.append(
            ReminderCancelled(
                reminder_id=row["reminder_id"],
                client_id=row["client_id"],
                interaction_id=row["interaction_id"],
                interaction_version=row["interaction_version"],
                reason=reason,
                occurred_at=now,
            )
        )
    if settled:
        await tx.execute(_SETTLE, *(list(column) for column in zip(*settled, strict=True)), now)
    await outbox.add_all(tx, said)


def _failure(row: asyncpg.Record, message_id: UUID, reason: str, now: datetime) -> MessageFailed:
    """What is said of a message that never goes out."""
    return MessageFailed(
        message_id=message_id,
        client_id=row["client_id"],
        channel=row["channel"],
        template=row["template"],
        interaction_id=row["interaction_id"],
        reason=reason,
        occurred_at=now,
    )


def reminder_timer(reschedule_url: str) -> Timer:
    """The due rows of `reminders`."""

    async def fire(tx: Connection, now: datetime) -> int:
        return await queue_due_reminders(tx, now, reschedule_url=reschedule_url)

    return Timer("reminders", due_column("reminders"), fire)
