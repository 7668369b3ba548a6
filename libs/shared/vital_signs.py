"""Whether anything of a worker is stuck: looked at once a second, from outside the loops at work.

Every look has its own connections and its own short limits, so that it still sees when the loops
no longer do. What it finds goes to Prometheus and to the watchdog. While the database or the broker
does not answer nothing is called stuck: the loops wait for them, as they should.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import asyncpg
from prometheus_client import Gauge

from libs.shared.clock import Clock
from libs.shared.database import SERVER_SETTINGS, is_transient
from libs.shared.dead_letters import OPEN_STATES
from libs.shared.kafka import Probe
from libs.shared.lag import LagMeter
from libs.shared.outbox import SHARDS
from libs.shared.relay import Relay
from libs.shared.timers import TimerLoop, look_at_all
from libs.shared.watchdog import Watchdog

LOOK_SECONDS = 1.0
ANSWER_SECONDS = 3.0  # what has not answered by then is taken for away
COUNTED = 100_000  # outbox rows counted one by one; more are estimated

DEPTH = Gauge(
    "outbox_depth", f"Events not yet sent; above {COUNTED} as PostgreSQL's statistics have it"
)
OLDEST = Gauge("outbox_oldest_seconds", "Age of the oldest event not yet sent")
DEAD_LETTERS = Gauge("dead_letters_open", "Events laid aside and not settled")
OVERDUE = Gauge("timer_overdue_seconds", "How long the next row to fire has been due", ["timer"])
TRANSACTION = Gauge(
    "database_oldest_transaction_seconds", "Age of the oldest open transaction of our role"
)
UP = Gauge("dependency_up", "Whether the database or the broker answered the last look", ["server"])

_LOOK = f"""
    SELECT
        (SELECT count(*) FROM (SELECT FROM outbox LIMIT {COUNTED}) AS first_ones) AS counted,
        (SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = 'outbox'::regclass) AS estimated,
        (SELECT array_agg(head.event_id) FROM generate_series(0, {SHARDS - 1}) AS every(shard)
            CROSS JOIN LATERAL (
                SELECT event_id FROM outbox WHERE outbox.shard = every.shard ORDER BY id LIMIT 1
            ) AS head) AS heads,
        EXISTS (SELECT FROM outbox WHERE shard = ANY($1::smallint[])) AS ours_to_send,
        (SELECT count(*) FROM dead_letters WHERE state IN {OPEN_STATES}) AS dead_letters,
        (SELECT extract(epoch FROM clock_timestamp() - min(xact_start))::float8
            FROM pg_stat_activity WHERE datname = current_database()
            AND backend_type = 'client backend' AND pid <> pg_backend_pid()) AS oldest_transaction,
        EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
            AND application_name = $2 AND xact_start < clock_timestamp() - $3::interval / 2
            AND (state = 'active' OR state_change > clock_timestamp() - $3::interval)) AS long_work
"""
# What was sent leaves empty pages until the next VACUUM, a minute away at times. Reading through
# them took 12 ms of every second, and every event of that moment waited.
_SETTINGS = {"application_name": "vital signs", "enable_seqscan": "off"}
_POSITIONS = """
    SELECT topic, partition, next_offset FROM consumer_positions WHERE topic = ANY($1::text[])
"""


@dataclass(slots=True)
class VitalSigns:
    """The looks at one worker.

    Attributes:
        sessions: The `application_name` of this process's database sessions.
        patience: How long work may go on without finishing anything before it counts as stuck.
        meter: Where the service hears events.
    """

    dsn: str
    sessions: str
    clock: Clock
    watchdog: Watchdog
    patience: timedelta
    relay: Relay
    probe: Probe
    timers: Sequence[TimerLoop]
    meter: LagMeter | None = None
    _connection: asyncpg.Connection | None = field(default=None, init=False)

    async def run(self) -> None:
        """Look for ever."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        self._hang_up()
        await self.probe.close()

    async def look(self) -> None:
        """Look once, tell Prometheus, tell the watchdog."""
        found = await self._ask_database()
        broker_up = await self._ask_broker(found)
        UP.labels("database").set(found is not None)
        UP.labels("broker").set(broker_up)
        # A batch or a firing may legally take long: its transaction is seen to work.
        free = found is not None and not found["long_work"]
        both_up = found is not None and broker_up
        has_rows = found is not None and bool(found["ours_to_send"])
        self.watchdog.note("relay", has_work=has_rows and broker_up, done=self.relay.rounds)
        for timer in self.timers:
            name = timer.timer.name
            is_due = found is not None and found["overdue"].get(name, 0.0) > 0
            self.watchdog.note(f"timer_{name}", has_work=free and is_due, done=timer.attempts)
        if self.meter is not None:
            consumer = self.meter.consumer
            has_work = free and broker_up and self.meter.ours > 0
            self.watchdog.note("consumer", has_work=has_work, done=sum(consumer.batches))
            for lane, (busy, done) in enumerate(zip(consumer.busy, consumer.batches, strict=True)):
                has_work = free and broker_up and busy
                self.watchdog.note(f"consumer_lane_{lane}", has_work=has_work, done=done)
            self.watchdog.note("leases", has_work=both_up and not consumer.ready, done=0)

    async def _ask_broker(self, found: dict[str, Any] | None) -> bool:
        answers = await self.probe.answers(within_seconds=ANSWER_SECONDS)
        if self.meter is None:
            return answers
        positions = found["positions"] if found else None
        return await self.meter.measure(positions, within_seconds=ANSWER_SECONDS) and answers

    async def _ask_database(self) -> dict[str, Any] | None:
        """What the database says, already told to Prometheus; None when it does not answer."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found = await self._look_into(await self._connected())
        except Exception as error:
            self._hang_up()
            if not is_transient(error):
                raise
            return None
        DEPTH.set(
            found["counted"]
            if found["counted"] < COUNTED
            else max(COUNTED, found["estimated"] or 0)
        )
        # UUIDv7: real time in milliseconds stands in front.
        oldest = min((head.int >> 80 for head in found["heads"] or ()), default=None)
        OLDEST.set(max(0.0, time.time() - oldest / 1000) if oldest is not None else 0.0)
        DEAD_LETTERS.set(found["dead_letters"])
        TRANSACTION.set(found["oldest_transaction"] or 0.0)
        for name, seconds in found["overdue"].items():
            OVERDUE.labels(name).set(seconds)
        return found

    async def _look_into(self, connection: asyncpg.Connection) -> dict[str, Any]:
        row = await connection.fetchrow(_LOOK, self.relay.held, self.sessions, self.patience)
        timers = [loop.timer for loop in self.timers]
        every_due, now = await look_at_all(connection, timers, self.clock)
        overdue = {
            timer.name: max(0.0, (now - due).total_seconds()) if due else 0.0
            for timer, due in zip(timers, every_due, strict=True)
        }
        topics = self.meter.consumer.subscriber.topics if self.meter else []
        positions = {
            (place["topic"], place["partition"]): place["next_offset"]
            for place in await connection.fetch(_POSITIONS, topics)
        }
        return {**(row or {}), "overdue": overdue, "positions": positions}

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None:
            self._connection = await asyncpg.connect(
                self.dsn,
                timeout=ANSWER_SECONDS,
                server_settings=SERVER_SETTINGS | _SETTINGS,
            )
        return self._connection

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
