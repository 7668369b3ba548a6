"""The loop that feeds a service's inbox from the partitions that this worker holds.

Effects, the inbox and the position in the topic are one transaction (`leases.py`), so a batch is
applied wholly or not at all, and by the holder of its partitions only. An outage of the database
takes the leases with it; when it is back they are taken again and hearing goes on from the stored
positions.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

import structlog
from prometheus_client import Histogram

from libs.shared import failpoints
from libs.shared.background import beside, to_its_end
from libs.shared.database import is_transient
from libs.shared.dead_letters import reason_of
from libs.shared.inbox import Inbox
from libs.shared.kafka import BrokerError, GroupOffsets, Partition, Record, Subscriber
from libs.shared.leases import LeaseLost, Leases
from libs.shared.outages import UNREACHABLE

log = structlog.get_logger()

FETCH_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 5.0
STOP_SECONDS = 10.0  # the batch in hand may take this long when the process is told to stop
DISCOVER_SECONDS = 30.0
RETRY_SECONDS = 1.0
TELL_SECONDS = 1.0
ROOM_SECONDS = 2.0  # the longest wait for the relay before a batch
# What follows from the beginning of a backlog is sent while the rest is applied.
FIRST_BATCH = 250
LANES = 2  # while one's SQL runs, the other reads and computes; more gain nothing (measured)

BATCH_SECONDS = Histogram("inbox_batch_seconds", "From fetched to committed")


class Consumer:
    """Feeds an inbox from the partitions held, for ever.

    Args:
        batch: Records at most; a backlog is begun with few, and each time twice as many are taken.
        relay_keeps_up: While it is not set, what was said waits to be sent, and batches wait, too.
            After an outage events would else pile up behind those of this process's own backlog.

    Attributes:
        batches: How many each lane has applied.
    """

    def __init__(
        self,
        subscriber: Subscriber,
        leases: Leases,
        inbox: Inbox,
        group: GroupOffsets,
        *,
        batch: int = 2000,
        relay_keeps_up: asyncio.Event | None = None,
    ) -> None:
        self.subscriber = subscriber
        self.leases = leases
        self._inbox = inbox
        self._group = group
        self._batch = batch
        self._most = [min(FIRST_BATCH, batch)] * LANES
        self._relay_keeps_up = relay_keeps_up
        self._in_hand: list[Sequence[Record]] = [()] * LANES
        self._version = 0  # of the leases, as last told to the subscriber
        self.batches = [0] * LANES

    @property
    def in_hand(self) -> list[Record]:
        """Records fetched and not yet applied."""
        return [record for records in self._in_hand for record in records]

    @property
    def busy(self) -> list[bool]:
        """Of each lane, whether it has a batch in hand."""
        return [bool(records) for records in self._in_hand]

    @property
    def ready(self) -> bool:
        """Whether it hears, or would if there were partitions for it."""
        return self.leases.known

    async def run(self) -> None:
        """Hear and apply until cancelled; the batch in hand is finished first.

        Raises:
            PoisonFlood: See `Inbox.apply`.
            PositionLost: See `Subscriber.fetch`.
        """
        async with (
            self.subscriber.connected(),
            self.leases.tended(),
            beside(self._discover_for_ever(), name="partitions"),
            beside(self._tell_for_ever(), name="group"),
        ):
            lanes = [asyncio.create_task(self._hear_for_ever(lane)) for lane in range(LANES)]
            try:
                ended, _ = await asyncio.wait(lanes, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in lanes:
                    task.cancel()  # once: a second time, its batch in hand would not be waited for
                await asyncio.gather(*lanes, return_exceptions=True)
            for task in ended:
                task.result()

    async def _hear_for_ever(self, lane: int) -> None:
        """Hear the partitions of one lane: each lane has its own transactions."""
        while True:
            if self._version != self.leases.version:
                # The other lane may have a batch in hand. It is heard again then, from the position
                # before it, and what was applied by that time is known by its offset.
                self._version = self.leases.version
                self.subscriber.hear(self.leases.held)
            if not any(partition % LANES == lane for _, partition in self.leases.held):
                await self.leases.wait_for_others(self._version, FETCH_SECONDS)
                continue
            await self._let_the_relay_catch_up()
            records = await self.subscriber.fetch(
                wait_seconds=FETCH_SECONDS, most=self._most[lane], lane=lane, lanes=LANES
            )
            self._most[lane] = min(max(FIRST_BATCH, 2 * len(records)), self._batch)
            await self._apply_until_done(records, lane)

    async def _let_the_relay_catch_up(self) -> None:
        if self._relay_keeps_up is None or self._relay_keeps_up.is_set():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(ROOM_SECONDS):
                await self._relay_keeps_up.wait()

    async def _apply_until_done(self, records: list[Record], lane: int) -> None:
        backoff = 0.1
        while records := self.leases.still_ours(records):
            self._in_hand[lane] = records
            # A stop waits for it, so that nothing committed is heard again for nothing.
            if await to_its_end(self._try_once(records), seconds=STOP_SECONDS):
                self.batches[lane] += 1
                break
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
        self._in_hand[lane] = ()

    async def _try_once(self, records: Sequence[Record]) -> bool:
        started = time.perf_counter()
        next_offsets = _next_offsets(records)
        try:
            await self._inbox.apply(records, self.leases.fence(next_offsets))
        except LeaseLost:
            await self._look_what_is_ours()
            return False
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("batch_put_off", reason=reason_of(error), records=len(records))
            return False
        failpoints.reach("consumer.applied")
        self.leases.applied(next_offsets)
        BATCH_SECONDS.observe(time.perf_counter() - started)
        return True

    async def _look_what_is_ours(self) -> None:
        log.info("lease_lost_with_a_batch_in_hand")
        try:
            await self.leases.refresh()
        except Exception as error:
            if not is_transient(error):
                raise

    async def _discover_for_ever(self) -> None:
        """Make new partitions known; topics may get more of them, or be made after our start."""
        while True:
            try:
                found = await self.subscriber.partitions()
                if unknown := await self.leases.unknown(found):
                    await self.leases.enter(await self.subscriber.beginnings(unknown))
            except (*UNREACHABLE, BrokerError) as error:
                log.warning("partitions_not_discovered", error=type(error).__name__)
                found = []
            complete = {topic for topic, _ in found} == set(self.subscriber.topics)
            await asyncio.sleep(DISCOVER_SECONDS if complete else RETRY_SECONDS)

    async def _tell_for_ever(self) -> None:
        """Let the tools that look at groups see how far we are."""
        told: dict[Partition, int] = {}
        try:
            while True:
                news = {p: n for p, n in self.leases.held.items() if told.get(p) != n}
                if news and await self._group.tell(news):
                    failpoints.reach("consumer.told")
                    told |= news
                await asyncio.sleep(TELL_SECONDS)
        finally:
            await self._group.tell(self.leases.held)
            await self._group.close()


def _next_offsets(records: Iterable[Record]) -> dict[Partition, int]:
    """Behind the last record of each partition; a partition's records are in their order."""
    return {(record.topic, record.partition): record.offset + 1 for record in records}
