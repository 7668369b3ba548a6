"""Which worker hears which partition, and from where: kept in the service's own database.

A partition belongs to one worker for a few seconds at a time. The lease ends early when the
worker's database session does, so after a kill -9 another worker, or the same one started again,
goes on within a second; a worker that only stands still loses its partitions after five. Positions
move in the transaction of the effects (`fence`), and only for the worker that holds the lease: one
that comes back from the dead finds its transaction refused. Workers share partitions evenly.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, TypeAlias
from uuid import UUID

import asyncpg
import structlog
from prometheus_client import Counter, Gauge

from libs.shared.background import beside
from libs.shared.database import SERVER_SETTINGS, Connection, TransientError
from libs.shared.ids import new_id
from libs.shared.kafka import Partition, Record
from libs.shared.outages import UNREACHABLE

log = structlog.get_logger()

TEND_SECONDS = 1.0
LEASE_SECONDS = 5.0
STATEMENT_SECONDS = 10.0

HELD = Gauge("consumer_partitions", "Partitions that this process hears")
MOVED = Counter("consumer_partitions_moved_total", "Partitions gained or lost", ["how"])

Positions: TypeAlias = dict[Partition, int]

_GONE = """NOT EXISTS (SELECT FROM pg_stat_activity AS a
    WHERE a.pid = {row}.session_pid AND a.backend_start = {row}.session_began)"""

_ENTER = """
    INSERT INTO consumer_positions (group_name, topic, partition, next_offset)
    SELECT $1, t, p, n FROM unnest($2::text[], $3::integer[], $4::bigint[]) AS told (t, p, n)
    WHERE NOT EXISTS (SELECT FROM consumer_positions -- the conflict alone would wait for its holder
        WHERE group_name = $1 AND topic = t AND partition = p)
    ORDER BY t, p ON CONFLICT DO NOTHING
"""
_KNOWN = "SELECT topic, partition FROM consumer_positions WHERE group_name = $1"
_SIGN_ON = """
    INSERT INTO consumer_workers (group_name, worker_id, session_pid, session_began, seen_until)
    SELECT $1, $2, pid, backend_start, clock_timestamp() + $3::float8 * interval '1 second'
    FROM pg_stat_activity WHERE pid = pg_backend_pid()
    ON CONFLICT (worker_id) DO UPDATE SET seen_until = excluded.seen_until,
        session_pid = excluded.session_pid, session_began = excluded.session_began
"""
_BURY = f"""
    DELETE FROM consumer_workers WHERE worker_id IN (
        SELECT worker_id FROM consumer_workers AS dead
        WHERE seen_until < clock_timestamp() OR {_GONE.format(row="dead")} FOR UPDATE SKIP LOCKED)
"""
# A row that is locked is being moved by a transaction of its holder: that is a lease, too.
_RENEW = """
    UPDATE consumer_positions AS p SET leased_until = clock_timestamp() + $3::float8
        * interval '1 second', session_pid = w.session_pid, session_began = w.session_began
    FROM consumer_workers AS w, (SELECT topic, partition FROM consumer_positions
        WHERE group_name = $1 AND worker_id = $2
        ORDER BY topic, partition FOR UPDATE SKIP LOCKED) AS mine
    WHERE w.worker_id = $2 AND p.group_name = $1 AND p.topic = mine.topic
        AND p.partition = mine.partition
"""
_MISSING = """
    SELECT ceil(count(*)::numeric / greatest(1,
            (SELECT count(*) FROM consumer_workers WHERE group_name = $1)))::integer
        - (count(*) FILTER (WHERE worker_id = $2))::integer
    FROM consumer_positions WHERE group_name = $1 AND topic = ANY($3::text[])
"""
_CLAIM = f"""
    WITH free AS MATERIALIZED (SELECT topic, partition FROM consumer_positions AS free
        WHERE group_name = $1 AND topic = ANY($4::text[]) AND (worker_id IS NULL
            OR (worker_id <> $2 AND (leased_until < clock_timestamp()
                OR {_GONE.format(row="free")})))
        ORDER BY topic, partition LIMIT $5 FOR UPDATE SKIP LOCKED)
    UPDATE consumer_positions AS p SET worker_id = $2, session_pid = w.session_pid,
        session_began = w.session_began,
        leased_until = clock_timestamp() + $3::float8 * interval '1 second'
    FROM consumer_workers AS w, free
    WHERE w.worker_id = $2 AND p.group_name = $1 AND p.topic = free.topic
        AND p.partition = free.partition
"""
_YIELD = """
    WITH surplus AS MATERIALIZED (SELECT topic, partition FROM consumer_positions
        WHERE group_name = $1 AND worker_id = $2
        ORDER BY topic DESC, partition DESC LIMIT $3 FOR UPDATE SKIP LOCKED)
    UPDATE consumer_positions AS p SET worker_id = NULL, leased_until = NULL
    FROM surplus
    WHERE p.group_name = $1 AND p.topic = surplus.topic AND p.partition = surplus.partition
"""
_MINE = """
    SELECT topic, partition, next_offset FROM consumer_positions
    WHERE group_name = $1 AND worker_id = $2 AND topic = ANY($3::text[])
"""
_LEAVE = """
    WITH gone AS (DELETE FROM consumer_workers WHERE worker_id = $2)
    UPDATE consumer_positions SET worker_id = NULL, leased_until = NULL
    WHERE group_name = $1 AND worker_id = $2
"""
MOVE = """
    UPDATE consumer_positions AS p SET next_offset = told.next,
        leased_until = clock_timestamp() + $6::float8 * interval '1 second'
    FROM unnest($3::text[], $4::integer[], $5::bigint[]) AS told (topic, partition, next)
    WHERE p.group_name = $1 AND p.worker_id = $2 AND p.topic = told.topic
        AND p.partition = told.partition AND p.next_offset < told.next
    RETURNING p.partition
"""


class LeaseLost(TransientError):
    """A partition of the batch is another worker's by now; nothing of the batch was applied."""


class Fence(NamedTuple):
    """The positions that a batch moves, which nobody but the holder of the leases can.

    These are the values of `MOVE`. It is the first thing that a batch's transaction does, alone or
    as a part of its first statement; where it does not move all of them, nothing else may stay.
    """

    group: str
    worker: UUID
    topics: list[str]
    partitions: list[int]
    next_offsets: list[int]
    lease_seconds: float = LEASE_SECONDS

    async def move(self, tx: Connection) -> None:
        """Move the positions in a transaction.

        Raises:
            LeaseLost: Not all of them are ours, or somebody has moved them on.
        """
        self.demand(len(await tx.fetch(MOVE, *self)))

    def demand(self, moved: int) -> None:
        """Refuse what was done if so many positions were moved.

        Raises:
            LeaseLost: They are not all.
        """
        if moved != len(self.partitions):
            raise LeaseLost("a partition of the batch is not ours any more")


NO_FENCE = Fence("", UUID(int=0), [], [], [])


class Leases:
    """One worker's share of its service's partitions.

    Args:
        dsn: Of the service's database; not through a transaction-pooling proxy, a session of our
            own says that we are alive.
        group: Who hears together; one for a service.
        topics: With their prefix.

    Attributes:
        held: Position of each partition that is ours: what has been applied.
        version: Grows when partitions have come or gone.
        known: Whether we know what is ours; not while the database is away.
    """

    def __init__(self, dsn: str, *, group: str, topics: Iterable[str]) -> None:
        self._dsn = dsn
        self._group = group
        self._topics = sorted(topics)
        self._worker = new_id()
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._lock = asyncio.Lock()
        self.held: Positions = {}
        self.version = 0
        self._moved = asyncio.Event()
        self._has_left = False
        self.known = False

    @asynccontextmanager
    async def tended(self) -> AsyncIterator["Leases"]:
        """Hold a fair share while the block runs; give it back at once, and for good, afterwards.

        Whoever came back after that would hold partitions that nobody hears.
        """
        try:
            async with beside(self._tend_for_ever(), name="leases"):
                yield self
        finally:
            await self._leave()

    async def enter(self, positions: Mapping[Partition, int]) -> None:
        """Make partitions known that nobody has heard yet, each with the offset to begin at."""
        async with self._lock:
            connection = await self._connected()
            await connection.execute(
                _ENTER,
                self._group,
                [topic for topic, _ in positions],
                [partition for _, partition in positions],
                list(positions.values()),
            )
        await self.refresh()

    async def unknown(self, partitions: Iterable[Partition]) -> set[Partition]:
        """Those of the partitions that have no position yet."""
        async with self._lock:
            connection = await self._connected()
            rows = await connection.fetch(_KNOWN, self._group)
        return set(partitions) - {(row["topic"], row["partition"]) for row in rows}

    def still_ours(self, records: Sequence[Record]) -> list[Record]:
        """The records that are ours to apply and are not applied yet."""
        held = self.held
        return [r for r in records if r.offset >= held.get((r.topic, r.partition), r.offset + 1)]

    def fence(self, next_offsets: Mapping[Partition, int]) -> Fence:
        """What moves these positions in a batch's transaction."""
        return Fence(
            self._group,
            self._worker,
            [topic for topic, _ in next_offsets],
            [partition for _, partition in next_offsets],
            list(next_offsets.values()),
        )

    def applied(self, next_offsets: Mapping[Partition, int]) -> None:
        """Note that a fenced transaction was committed."""
        self.held.update({p: n for p, n in next_offsets.items() if p in self.held})

    async def refresh(self) -> None:
        """Renew what is ours, take what is free, give back what is too much.

        Raises:
            Exception: Transient ones; nothing is ours then.
        """
        async with self._lock:
            if self._has_left:
                return
            try:
                async with asyncio.timeout(STATEMENT_SECONDS):
                    rows = await self._tend(await self._connected())
            except BaseException:
                self._disconnect()
                raise
        self.known = True
        self._hold({(row["topic"], row["partition"]): row["next_offset"] for row in rows})

    async def _tend(self, connection: "asyncpg.Connection[asyncpg.Record]") -> list[asyncpg.Record]:
        me = (self._group, self._worker)
        await connection.execute(_SIGN_ON, *me, LEASE_SECONDS)
        await connection.execute(_BURY)
        await connection.execute(_RENEW, *me, LEASE_SECONDS)
        missing: int = await connection.fetchval(_MISSING, *me, self._topics)
        if missing > 0:
            await connection.execute(_CLAIM, *me, LEASE_SECONDS, self._topics, missing)
        elif missing < 0:
            await connection.execute(_YIELD, *me, -missing)
        return await connection.fetch(_MINE, *me, self._topics)

    def _hold(self, found: Positions) -> None:
        gained, lost = found.keys() - self.held.keys(), self.held.keys() - found.keys()
        # A commit of ours may be younger than what was read.
        self.held = {p: max(offset, self.held.get(p, 0)) for p, offset in found.items()}
        HELD.set(len(found))
        for how, moved in (("gained", gained), ("lost", lost)):
            MOVED.labels(how).inc(len(moved))
        if gained or lost:
            log.info("partitions_moved", gained=len(gained), lost=len(lost), held=len(found))
            self.version += 1
            self._moved.set()  # whoever waits goes on; who comes later waits for the next time
            self._moved.clear()

    async def wait_for_others(self, version: int, seconds: float) -> None:
        """Sleep until other partitions are held than at this version, or for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.version == version:
                    await self._moved.wait()

    async def _tend_for_ever(self) -> None:
        while True:
            try:
                await self.refresh()
            except UNREACHABLE as error:
                log.warning("leases_not_renewed", error=type(error).__name__)
            await asyncio.sleep(TEND_SECONDS)

    async def _connected(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._dsn,
                timeout=5,
                command_timeout=STATEMENT_SECONDS,
                server_settings=SERVER_SETTINGS | {"application_name": "leases"},
            )
        return self._connection

    def _disconnect(self) -> None:
        self.known = False
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
        self._hold({})

    async def _leave(self) -> None:
        async with self._lock:
            self._has_left = True
            try:
                with suppress(*UNREACHABLE):
                    async with asyncio.timeout(5):
                        await (await self._connected()).execute(_LEAVE, self._group, self._worker)
            finally:
                self._disconnect()
