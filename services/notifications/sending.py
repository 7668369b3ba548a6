"""Messages go out: taken in one transaction, sent outside of any, settled in another.

A message belongs to the worker that took it for the time of its lease. If the worker dies, whether
the message went is unknown; when the lease is over it is taken again. The second channel knows a
repeat by its id. Mail does not: it goes out at least once, twice after a crash at the wrong moment,
with the same Message-ID, which mail programs show once. Before each attempt it is looked again
whether the meeting stands, or anything of an alert is still to be done. What a provider puts off is
tried later, with growing waits; what it refuses has failed.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, Protocol
from uuid import UUID

import asyncpg
import structlog
from prometheus_client import Counter

from libs.shared import failpoints, outbox, policies
from libs.shared.background import to_its_end
from libs.shared.clock import Clock
from libs.shared.database import Connection, Database, is_transient
from libs.shared.events import Event, MessageFailed, MessageSent, ReminderCancelled
from libs.shared.wake import Bell
from services.notifications.reminder_policy import SendingPolicy

log = structlog.get_logger()

BATCH = 8  # sent at the same time; each has its whole attempt within the lease
LONGEST_SLEEP_SECONDS = 1.0
RETRY_SECONDS = 0.5
STOP_SECONDS = 10.0  # for what is in hand: a stop leaves no message in doubt for nothing

ATTEMPTS = Counter("delivery_attempts_total", "Attempts to send", ["channel", "outcome"])

# Leases are compared with real time: a sandbox clock that jumps a day ahead must not take a
# message away from the worker that is sending it.
_TAKE = """
    WITH due AS (SELECT message_id FROM deliveries WHERE channel = $1 AND due_at <= $2
            ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED),
        lapsed AS (SELECT message_id FROM deliveries WHERE channel = $1 AND leased_until <= now()
            ORDER BY leased_until LIMIT $3 FOR UPDATE SKIP LOCKED),
        ours AS (SELECT message_id, false AS has_lapsed FROM due
            UNION ALL SELECT message_id, true FROM lapsed LIMIT $3)
    UPDATE deliveries AS d SET state = 'sending', attempts = d.attempts + 1, due_at = NULL,
        leased_until = now() + $4::interval, may_have_gone = d.may_have_gone OR ours.has_lapsed
    FROM ours WHERE d.message_id = ours.message_id
    RETURNING d.message_id, d.reminder_id, d.client_id, d.interaction_id, d.interaction_version,
        d.channel, d.template, d.address, d.subject, d.body, d.attempts, d.may_have_gone
"""

_STANDING = """
    SELECT d.message_id FROM deliveries AS d JOIN meetings AS m USING (interaction_id)
    WHERE d.message_id = ANY($1::uuid[]) AND m.state = 'planned'
      AND m.version = d.interaction_version AND m.starts_at > $2
    UNION SELECT message_id FROM alerts WHERE message_id = ANY($1::uuid[]) AND over_at IS NULL
"""

# Whoever brings the provider's yes settles it, even if the lease was lost meanwhile; anything else
# counts only from the worker that still has it.
_SETTLE = """
    WITH settled AS (
        UPDATE deliveries SET state = $3::text, reason = $4::text, provider_id = $5, due_at = $6,
            leased_until = NULL, may_have_gone = $7,
            address = CASE WHEN $3::text = 'queued' THEN address END,
            settled_at = CASE WHEN $3::text <> 'queued' THEN $8::timestamptz END
        WHERE message_id = $1 AND ((state = 'sending' AND attempts = $2)
            OR ($3::text = 'sent' AND state IN ('sending', 'queued')))
        RETURNING message_id, reminder_id
    ), reminder AS (
        UPDATE reminders AS r
        SET state = CASE WHEN $3::text = 'queued' THEN 'sending' ELSE $3::text END,
            reason = CASE WHEN $3::text = 'queued' THEN NULL ELSE $4::text END, changed_at = $8
        FROM settled WHERE r.reminder_id = settled.reminder_id
    ), alert AS (
        UPDATE alerts AS a
        SET state = CASE WHEN $3::text = 'queued' THEN 'sending' ELSE $3::text END,
            reason = CASE WHEN $3::text = 'queued' THEN NULL ELSE $4::text END, changed_at = $8
        FROM settled WHERE a.message_id = settled.message_id
    )
    SELECT message_id FROM settled
"""

_NEXT = """
    SELECT (SELECT min(due_at) FROM deliveries WHERE channel = $1 AND due_at IS NOT NULL) AS due_at,
        (SELECT min(leased_until) FROM deliveries WHERE channel = $1 AND leased_until IS NOT NULL)
            - now() AS lease_left
"""


class Reminded(NamedTuple):
    """What a message to a client reminds of."""

    reminder_id: UUID
    client_id: UUID
    interaction_id: UUID
    interaction_version: int


class Outgoing(NamedTuple):
    """A message that is ours to send.

    Attributes:
        reminded: None: it goes to staff, and no event tells of it.
    """

    message_id: UUID
    reminded: Reminded | None
    channel: str
    template: str
    address: str
    subject: str
    body: str
    attempts: int
    may_have_gone: bool


class Outcome(NamedTuple):
    """What a provider made of a message.

    Attributes:
        verdict: "sent": it is the provider's now. "later": try again. "refused": never again.
        reason: A code, and after `: ` what the provider said; no address of anybody.
        may_have_gone: The provider's word is missing: it may have the message.
    """

    verdict: Literal["sent", "later", "refused"]
    reason: str | None = None
    provider_id: str | None = None
    may_have_gone: bool = False


class Provider(Protocol):
    """A way out. `send` never raises for what a provider does; `rest` may close connections."""

    async def send(self, message: Outgoing) -> Outcome: ...

    async def rest(self) -> None: ...


async def take_due(
    tx: Connection, channel: str, *, now: datetime, lease: timedelta, limit: int = BATCH
) -> list[Outgoing]:
    """Take messages to send; those that nobody needs any more are settled instead."""
    rows = [_outgoing(row) for row in await tx.fetch(_TAKE, channel, now, limit, lease)]
    if not rows:
        return []
    found = await tx.fetch(_STANDING, [row.message_id for row in rows], now)
    standing = {row["message_id"] for row in found}
    for message in rows:
        if message.message_id not in standing:
            await _give_up(tx, message, now=now)
    return [message for message in rows if message.message_id in standing]


async def settle(tx: Connection, message: Outgoing, outcome: Outcome, *, now: datetime) -> bool:
    """Write down what became of a message and say it; False if it was settled without us."""
    may_have_gone = message.may_have_gone or outcome.may_have_gone
    policy = (await policies.current(tx, SendingPolicy)).body
    state, due_at = {"sent": "sent", "refused": "failed"}.get(outcome.verdict), None
    if state is None and message.attempts < policy.max_attempts:
        state = "queued"
        due_at = now + timedelta(seconds=policy.wait_seconds(message.attempts))
    elif state is None:
        state = "unknown" if may_have_gone else "failed"
    row = await tx.fetchrow(
        _SETTLE,
        *(message.message_id, message.attempts, state, outcome.reason, outcome.provider_id),
        *(due_at, may_have_gone and state != "sent", now),
    )
    if row is None:
        return False
    of = message.reminded
    if of is not None and state == "sent":
        await outbox.add_all(tx, [_sent(message, of, now)])
    elif of is not None and state != "queued":
        await outbox.add_all(tx, [_failed(message, of, now, reason=outcome.reason or state)])
    return True


async def _give_up(tx: Connection, message: Outgoing, *, now: datetime) -> None:
    """The meeting was moved, cancelled or has begun, or somebody has acted, before it went out."""
    state = "unknown" if message.may_have_gone else "cancelled"
    await tx.fetchrow(
        _SETTLE,
        *(message.message_id, message.attempts, state, "too_late", None, None),
        *(message.may_have_gone, now),
    )
    of = message.reminded
    if of is None:
        return
    said: Event = ReminderCancelled(**of._asdict(), reason="too_late", occurred_at=now)
    if message.may_have_gone:
        said = _failed(message, of, now, reason="too_late")
    await outbox.add_all(tx, [said])


def _outgoing(row: asyncpg.Record) -> Outgoing:
    message_id, *reminded = row[:5]
    return Outgoing(message_id, Reminded(*reminded) if row["reminder_id"] else None, *row[5:])


def _sent(message: Outgoing, of: Reminded, now: datetime) -> MessageSent:
    return MessageSent(
        message_id=message.message_id,
        client_id=of.client_id,
        channel=message.channel,
        template=message.template,
        interaction_id=of.interaction_id,
        occurred_at=now,
    )


def _failed(message: Outgoing, of: Reminded, now: datetime, *, reason: str) -> MessageFailed:
    return MessageFailed(
        message_id=message.message_id,
        client_id=of.client_id,
        channel=message.channel,
        template=message.template,
        interaction_id=of.interaction_id,
        reason=reason.partition(": ")[0],  # what a provider said may name somebody
        occurred_at=now,
    )


class SendingLoop:
    """Sends the messages of one channel for ever; a slow channel holds up no other."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        channel: str,
        provider: Provider,
        lease: timedelta,
    ) -> None:
        self._database = database
        self._clock = clock
        self._channel = channel
        self._provider = provider
        self._lease = lease
        self._bell: Bell = database.wake.bell()

    async def run(self) -> None:
        """Send what is due, sleep until the next; a lost database is waited for."""
        while True:
            try:
                if not await to_its_end(self.send_due(), seconds=STOP_SECONDS):
                    await self._provider.rest()
                    await self._bell.wait(await self._seconds_to_next())
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("sending_put_off", channel=self._channel, error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)

    async def send_due(self) -> int:
        """One batch; how many messages were tried."""
        async with self._database.transaction() as tx:
            now = await self._clock.read(tx)
            taken = await take_due(tx, self._channel, now=now, lease=self._lease)
        if taken:
            failpoints.reach("sending.taken")
        await asyncio.gather(*(self._send(message) for message in taken))
        return len(taken)

    async def _send(self, message: Outgoing) -> None:
        outcome = await self._provider.send(message)
        failpoints.reach("sending.sent")
        ATTEMPTS.labels(self._channel, outcome.verdict).inc()
        log.info(
            "message_tried",
            message_id=str(message.message_id),
            channel=message.channel,
            verdict=outcome.verdict,
            attempts=message.attempts,
        )
        await self._settle_for_sure(message, outcome)

    async def _settle_for_sure(self, message: Outgoing, outcome: Outcome) -> None:
        """Settle, again if the database was away a moment: else the message would be repeated."""
        give_up = asyncio.get_running_loop().time() + self._lease.total_seconds()
        while True:
            try:
                async with self._database.transaction() as tx:
                    now = await self._clock.read(tx)
                    await settle(tx, message, outcome, now=now)
                return
            except Exception as error:
                if not is_transient(error) or asyncio.get_running_loop().time() > give_up:
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    async def _seconds_to_next(self) -> float:
        async with self._database.pool.acquire() as connection:
            now = await self._clock.read(connection)
            row = await connection.fetchrow(_NEXT, self._channel)
        waits = [LONGEST_SLEEP_SECONDS]
        if row is not None and row["due_at"] is not None:
            waits.append((row["due_at"] - now).total_seconds())
        if row is not None and row["lease_left"] is not None:
            waits.append(row["lease_left"].total_seconds())
        return max(0.02, min(waits))


def sending(
    channel: str, make: Callable[[], Provider], lease: timedelta
) -> Callable[[Database, Clock], Coroutine[Any, Any, None]]:
    """A loop for the worker, named after its channel."""

    async def send_messages(database: Database, clock: Clock) -> None:
        provider = make()
        try:
            await SendingLoop(database, clock, channel, provider, lease).run()
        finally:
            await provider.rest()

    send_messages.__name__ = f"send_{channel}"
    return send_messages


def without_address(said: str, message: Outgoing) -> str:
    """What a provider said, shortened and with the client's address taken out of it."""
    return said.replace(message.address, "***").replace("\n", " ")[:300]
