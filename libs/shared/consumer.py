"""The loop that feeds a service's inbox from its consumer group.

Offsets are committed to Kafka only after the batch's transaction; a crash in between hears the
batch again, and the inbox knows it. An outage of the database is waited for with the partitions
paused, still a member of the group, and the same batch is tried again.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence

import structlog
from prometheus_client import Gauge, Histogram

from libs.shared import failpoints
from libs.shared.database import is_transient
from libs.shared.dead_letters import reason_of
from libs.shared.inbox import Inbox
from libs.shared.kafka import Partition, Record, Subscriber

log = structlog.get_logger()

FETCH_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 5.0
STOP_SECONDS = 10.0  # the batch in hand may take this long when the process is told to stop

BATCH_SECONDS = Histogram("inbox_batch_seconds", "From fetched to committed")
LAG_SECONDS = Gauge("consumer_lag_seconds", "Age of the last record applied, by topic", ["topic"])
PROGRESS = Gauge("consumer_last_progress_seconds", "Unix time of the last batch committed")


class Consumer:
    """Feeds an inbox from the service's group, for ever."""

    def __init__(self, subscriber: Subscriber, inbox: Inbox, *, batch: int = 2000) -> None:
        self._subscriber = subscriber
        self._inbox = inbox
        self._batch = batch
        self.ready = False

    async def run(self) -> None:
        """Hear and apply until cancelled; the batch in hand is finished first.

        Raises:
            PoisonFlood: See `Inbox.apply`.
            Exception: A group that cannot be joined.
        """
        async with self._subscriber.joined():
            self.ready = True
            try:
                while True:
                    records = await self._subscriber.fetch(
                        wait_seconds=FETCH_SECONDS, most=self._batch
                    )
                    if records:
                        await self._apply_until_done(records)
            finally:
                self.ready = False

    async def _apply_until_done(self, records: list[Record]) -> None:
        backoff = 0.1
        paused = False
        while records:
            async with self._subscriber.in_hand:
                ours = self._subscriber.assigned()
                records = [r for r in records if (r.topic, r.partition) in ours]
                if not records or await self._finish(records):
                    break
            if not paused:
                self._subscriber.pause()
                paused = True
            # Fetching keeps us in the group; what comes of partitions that joined us meanwhile is
            # kept, because it will not be fetched again.
            records += await self._subscriber.fetch(wait_seconds=backoff, most=1)
            self._subscriber.pause()
            backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
        if paused:
            self._subscriber.resume()

    async def _finish(self, records: Sequence[Record]) -> bool:
        """Try once; a stop waits for it, so that nothing committed is heard again for nothing."""
        attempt = asyncio.create_task(self._try_once(records))
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            await asyncio.wait([attempt], timeout=STOP_SECONDS)
            raise

    async def _try_once(self, records: Sequence[Record]) -> bool:
        started = time.perf_counter()
        try:
            await self._inbox.apply(records)
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("batch_put_off", reason=reason_of(error), records=len(records))
            return False
        failpoints.reach("consumer.applied")
        await self._subscriber.commit(_next_offsets(records))
        failpoints.reach("consumer.committed")
        BATCH_SECONDS.observe(time.perf_counter() - started)
        PROGRESS.set(time.time())
        LAG_SECONDS.labels(records[-1].topic).set(
            max(0.0, time.time() - records[-1].timestamp_ms / 1000)
        )
        return True


def _next_offsets(records: Iterable[Record]) -> dict[Partition, int]:
    offsets: dict[Partition, int] = {}
    for record in records:
        at = (record.topic, record.partition)
        offsets[at] = max(offsets.get(at, 0), record.offset + 1)
    return offsets
