"""The relay: sends what stands in the outbox, and deletes what the broker has acknowledged.

Any number of relays may run. Each shard is held by one of them through an advisory lock of its
database session; when that session ends, however it ends, another relay takes the shard. The same
session reads and deletes, so whoever has lost the lock cannot go on. A relay that dies between
sending and deleting is followed by one that sends the same rows again, in the same order.

Whoever commits in the relay's own process may hand it the rows, which spares reading them; they
stand in the outbox until they are sent all the same.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence

import asyncpg
import structlog
from opentelemetry.trace import SpanKind
from prometheus_client import Counter

from libs.shared import failpoints, telemetry
from libs.shared.arrays import array_text
from libs.shared.background import to_its_end
from libs.shared.cloudevents import headers_of
from libs.shared.database import SERVER_SETTINGS, is_transient, prepare_connection
from libs.shared.kafka import BrokerError, Outgoing, Publisher
from libs.shared.outbox import SENT_COLUMNS, SHARDS
from libs.shared.wake import Bell

log = structlog.get_logger()

LOCK_SPACE = 0x0B0A  # first key of the advisory locks; the second is the shard
BATCH = 500  # rows of one shard in one round
FULL = 0.8  # of what a round can hold; the shards are not equally long
POLL_SECONDS = 0.2  # the floor when a wake-up was lost
CLAIM_SECONDS = 1.0  # how often shards that others hold are asked for
RETRY_SECONDS = 0.5
STOP_SECONDS = 12.0  # the round in hand may take this long when the process is told to stop

SENT = Counter("outbox_sent_total", "Events acknowledged by the broker")
AHEAD = Counter("outbox_sent_ahead_total", "Of those, events sent without being read")
FAILURES = Counter("outbox_relay_failures_total", "Rounds that failed and were begun again")

_READ = f"""
    SELECT {", ".join(f"o.{name}" for name in SENT_COLUMNS)}
    FROM unnest($1::smallint[]) AS held(shard) CROSS JOIN LATERAL (
        SELECT * FROM outbox WHERE outbox.shard = held.shard ORDER BY id LIMIT $2
    ) AS o
"""
# Not a join with what was sent: an outbox is empty most of the time, and if the statistics are of
# such a moment, PostgreSQL takes each row that stands there for the only one and compares it with
# all that was sent. 4,000 of 20,000 took 17 seconds so; they take 8 milliseconds. One shard at a
# time, because its ids are its own: a database that was moved without its sequences may draw an id
# again, for a row of another shard that has yet to be sent.
_DELETE = "DELETE FROM outbox WHERE shard = $1 AND id = ANY($2::text::bigint[])"
# Nor does a round ever read the whole table, as a plan that was made for three rows does for ever:
# 4,000 of 45,000 took 10 seconds so.
_SETTINGS = {"application_name": "relay", "enable_seqscan": "off"}


class Relay:
    """Sends one service's outbox.

    Args:
        dsn: Of the service's database; not through a transaction-pooling proxy, the locks are
            the session's.
        source: CloudEvents `source`, `/contacts`.
        prefix: In front of every topic.

    Attributes:
        bell: Rings for commits that are to be read; who hands rows over does not ring it.
        held: The shards that are ours.
        rounds: How many were sent or have failed.
        keeps_up: Set, but for the time in which a round took all that a round can hold: more is
            said than is sent, and whoever says it should let the relay catch up.
    """

    def __init__(
        self, dsn: str, *, source: str, publisher: Publisher, bell: Bell, prefix: str = ""
    ) -> None:
        self._dsn = dsn
        self._source = source
        self._publisher = publisher
        self.bell = bell
        self._prefix = prefix
        self.held: list[int] = []
        self._ahead: list[asyncpg.Record] = []  # committed, and not read yet
        self.sent = 0
        self.rounds = 0
        self.keeps_up = asyncio.Event()
        self.keeps_up.set()

    async def run(self) -> None:
        """Send for ever; a lost database or broker is waited for, nothing is skipped."""
        while True:
            try:
                await self._run_on_one_connection()
            except BrokerError as error:
                log.warning("relay_broker_failed", error=type(error).__name__)
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("relay_database_failed", error=type(error).__name__)
            FAILURES.inc()
            self.rounds += 1
            self.keeps_up.set()  # who waits for us would do so in vain
            await asyncio.sleep(RETRY_SECONDS)

    async def _run_on_one_connection(self) -> None:
        connection = await self.connected()
        try:
            await prepare_connection(connection)
            self.held, self._ahead = [], []
            rung, read_at, asked_at = True, float("-inf"), float("-inf")
            while True:
                if len(self.held) < SHARDS and time.monotonic() - asked_at > CLAIM_SECONDS:
                    await self._claim_shards(connection)
                    asked_at = time.monotonic()
                if rung or not self._ahead or time.monotonic() - read_at > POLL_SECONDS:
                    read_at = time.monotonic()
                    round_ = self.send_once(connection)
                else:
                    round_ = self._send_what_is_ahead(connection)
                # A stop waits for the round: what is sent and not deleted would be sent again.
                sent = await to_its_end(round_, seconds=STOP_SECONDS)
                # A round that was not full took all there was; what came since rings or has rung.
                rung = sent >= BATCH or not self.keeps_up.is_set()
                rung = rung or await self.bell.wait(POLL_SECONDS)
        finally:
            self.held = []
            connection.terminate()  # also lets go of the locks
            await self._publisher.close()

    async def connected(self) -> asyncpg.Connection:
        """A connection on which rounds can be sent."""
        return await asyncpg.connect(
            self._dsn,
            timeout=10,
            command_timeout=60,
            # A crash may bring deleted rows back, and they are sent again; waiting for the disk
            # after each round would make every event wait for the one before it.
            server_settings=SERVER_SETTINGS | _SETTINGS | {"synchronous_commit": "off"},
        )

    async def _claim_shards(self, connection: asyncpg.Connection) -> None:
        rows = await connection.fetch(
            "SELECT shard FROM unnest($2::int[]) AS shard WHERE pg_try_advisory_lock($1, shard)",
            LOCK_SPACE,
            [shard for shard in range(SHARDS) if shard not in self.held],
        )
        self.held += [row["shard"] for row in rows]

    def send_ahead(self, rows: Sequence[asyncpg.Record]) -> bool:
        """Have rows sent that were just committed, without reading them first.

        Args:
            rows: `SENT_COLUMNS` of each, those of a key in the order of their ids. Nothing of
                their keys stood in the outbox before them.

        Returns:
            Whether they are sent so; else somebody must be rung to read them.
        """
        if not rows or not all(row["shard"] in self.held for row in rows):
            return False
        self._ahead += rows
        self.bell.stir()
        return True

    async def _send_what_is_ahead(self, connection: asyncpg.Connection) -> int:
        if connection.is_closed():
            raise asyncpg.InterfaceError("the connection is closed, and the shards are others'")
        rows, self._ahead = self._ahead, []
        await self._send(connection, rows)
        AHEAD.inc(len(rows))
        return len(rows)

    async def send_once(self, connection: asyncpg.Connection) -> int:
        """Send and delete one round of the shards held; how many events that were."""
        self._ahead = []  # committed: it is read now, or in the round after this one
        rows = await connection.fetch(_READ, self.held, BATCH) if self.held else []
        if not rows:
            self.keeps_up.set()  # also where others hold all shards: they are not ours to send
            return 0
        if len(rows) < FULL * BATCH * len(self.held):
            self.keeps_up.set()
        else:
            self.keeps_up.clear()
        await self._send(connection, rows)
        return len(rows)

    async def _send(self, connection: asyncpg.Connection, rows: Sequence[asyncpg.Record]) -> None:
        failpoints.reach("relay.read")
        with telemetry.span(
            "outbox publish",
            kind=SpanKind.PRODUCER,
            links=telemetry.links_from(row["traceparent"] for row in rows),
        ):
            await self._publisher.send_all(
                [outgoing for row in rows for outgoing in self._outgoing(row)]
            )
        failpoints.reach("relay.acknowledged")
        sent: dict[int, list[int]] = defaultdict(list)
        for row in rows:
            sent[row["shard"]].append(row["id"])
        await connection.executemany(_DELETE, [(n, array_text(ids)) for n, ids in sent.items()])
        if self._ahead:  # this round may have read it
            gone = {row["id"] for row in rows}
            self._ahead = [row for row in self._ahead if row["id"] not in gone]
        failpoints.reach("relay.deleted")
        SENT.inc(len(rows))
        self.sent += len(rows)
        self.rounds += 1

    def _outgoing(self, row: asyncpg.Record) -> list[Outgoing]:
        _, _, id_, topic, also, key, type_, time_, data, correlation, cause, trace, extra = row
        headers = headers_of(id_, self._source, type_, time_, key, correlation, cause, trace)
        if extra:
            headers += [(name, value.encode()) for name, value in extra.items()]
        binary_key = key.encode()
        outgoing = [Outgoing(self._prefix + topic, binary_key, data, headers)]
        if also is not None:
            outgoing.append(Outgoing(self._prefix + also, binary_key, data, headers))
        return outgoing
