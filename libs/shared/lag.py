"""How far a service is behind its topics, in records and in seconds.

Both grow while nothing moves: they are measured against the ends of the topics and the clock, not
noted down when a batch succeeds. All partitions count, those that nobody holds included.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping

from prometheus_client import Gauge

from libs.shared.consumer import Consumer
from libs.shared.kafka import BrokerError, Partition

RECORDS = Gauge("consumer_lag_records", "Records not yet applied by the service", ["topic"])
SECONDS = Gauge("consumer_lag_seconds", "Age of the oldest record not yet applied", ["topic"])


class LagMeter:
    """Measures one consumer and its service.

    Attributes:
        ours: Records of the partitions we hold that are not yet applied, as measured last.
    """

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.ours = 0
        self._positions: dict[Partition, int] = {}
        self._ends: dict[Partition, int] = {}
        self._behind_since: dict[Partition, tuple[int, float]] = {}  # position, Unix seconds

    async def measure(
        self, positions: Mapping[Partition, int] | None, *, within_seconds: float
    ) -> bool:
        """Measure and tell; from what was known last where somebody does not answer.

        Args:
            positions: Of all partitions, as the database has them; None when it does not answer.

        Returns:
            Whether the broker answered.
        """
        held = self.consumer.leases.held
        self._positions = {**(self._positions if positions is None else positions), **held}
        try:
            async with asyncio.timeout(within_seconds):
                self._ends = await self.consumer.subscriber.ends(self._positions)
            answered = True
        except (BrokerError, TimeoutError, OSError):
            answered = False
        self._tell(time.time())
        return answered

    def _tell(self, now: float) -> None:
        in_hand: dict[Partition, float] = {}  # Unix seconds of the oldest
        for record in self.consumer.in_hand:
            in_hand.setdefault((record.topic, record.partition), record.timestamp_ms / 1000)
        held = self.consumer.leases.held
        records: dict[str, int] = defaultdict(int)
        seconds: dict[str, float] = defaultdict(float)
        self.ours = 0
        for at, position in self._positions.items():
            behind = self._ends.get(at, 0) - position
            since = self._seen(at, position, behind, now)
            if behind <= 0:
                continue
            records[at[0]] += behind
            seconds[at[0]] = max(seconds[at[0]], now - in_hand.get(at, since))
            self.ours += behind if at in held else 0
        for topic in self.consumer.subscriber.topics:
            RECORDS.labels(topic).set(records[topic])
            SECONDS.labels(topic).set(seconds[topic])

    def _seen(self, at: Partition, position: int, behind: int, now: float) -> float:
        """A record that nobody has fetched is at least as old as our knowledge of it."""
        known = self._behind_since.get(at)
        if behind <= 0 or known is None or known[0] != position:
            self._behind_since[at] = known = (position, now)
        return known[1]
