"""Hearing events: a batch, its effects and the memory of it in one transaction.

A handler gets all new events of one type in a batch, in order for each key, on a connection whose
transaction also records the events' ids in the inbox and takes the events that the handler says in
turn. Hearing the batch again finds its ids and lets nothing of it through. A poison event is found
by bisection and laid aside with its reason (`dead_letters.py`); later events of its lane wait
behind it, all others go on.
"""

from collections import Counter as Counted
from collections.abc import Sequence

import asyncpg
import structlog
from opentelemetry.trace import SpanKind
from prometheus_client import Counter

from libs.shared import at_once, dead_letters, failpoints, telemetry
from libs.shared.arrays import ids_text
from libs.shared.database import BY_KEYS, Connection, Database, is_transient
from libs.shared.dead_letters import reason_of
from libs.shared.kafka import Record
from libs.shared.leases import NO_FENCE, Fence
from libs.shared.relay import Relay
from libs.shared.subscriptions import Dispatcher, Heard, in_rounds

log = structlog.get_logger()

HEARD = Counter("inbox_events_total", "Events applied", ["type"])
REPEATS = Counter("inbox_duplicates_total", "Events that had been applied before")
POISON = Counter("inbox_poison_total", "Events laid aside", ["type"])
AT_ONCE = Counter("inbox_at_once_total", "Batches heard in one statement", ["outcome"])

# Where all are new, as nearly always, no id comes back: reading thousands costs as much again.
# Handlers look rows up by keys; a plan made while three rows stood there must not read them all.
_REMEMBER = f"""
    WITH {at_once.REMEMBERING}
    SELECT {BY_KEYS}, (SELECT count(*) FROM moved) AS moved, count(*) AS new,
        CASE WHEN count(*) < $8 THEN coalesce(array_agg(event_id), '{{}}') END AS new_ids,
        {dead_letters.ANY_OPEN} AS any_parked
    FROM new
"""
FEW = 50  # events of which the way to the database takes the most time


class PoisonFlood(RuntimeError):
    """So many bad events in a row that it is our code that is bad; the process must stop."""


class Inbox:
    """Applies batches of records to a service's database, each batch exactly once.

    Args:
        relay: Of this process; gets what was said without having to read it.
    """

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        *,
        poison_limit: int = 100,
        relay: Relay | None = None,
    ) -> None:
        self._database = database
        self._relay = relay
        self._dispatcher = dispatcher
        self._poison_limit = poison_limit
        self._poison_in_a_row = 0
        self._any_parked = False  # as it was last seen: in vain would every batch be begun twice

    async def apply(self, records: Sequence[Record], fence: Fence = NO_FENCE) -> None:
        """Apply a batch and commit; nothing of it stays when this raises.

        Args:
            fence: Moves first of all; if it does not, the batch is refused.

        Raises:
            LeaseLost: The fence did not move.
            PoisonFlood: More than `poison_limit` bad events in a row.
            Exception: Transient ones (`is_transient`); the same batch can be given again.
        """
        heard = [item for record in records if (item := self._dispatcher.read(record))]
        if not heard:
            if fence.partitions:  # nothing for us; but unmoved it would look like lag, and be lost
                # No bell: a position makes nothing due and leaves nothing to send.
                async with self._database.pool.acquire() as tx, tx.transaction():
                    await fence.move(tx)
            return
        links = telemetry.links_from(item.envelope.traceparent for item in heard if item.envelope)
        with telemetry.span("inbox batch", kind=SpanKind.CONSUMER, links=links):
            if len(heard) <= FEW and await self._at_once(heard, fence):
                return
            try:
                await self._attempt(heard, fence, carefully=any(h.event is None for h in heard))
            except PoisonFlood:
                raise
            except Exception as error:
                if is_transient(error):
                    raise
                log.warning("batch_refused", reason=reason_of(error), events=len(heard))
                await self._attempt(heard, fence, carefully=True)

    async def _at_once(self, heard: Sequence[Heard], fence: Fence) -> bool:
        """Hear a few events in one round trip, if nothing about them is out of the ordinary."""
        events = [item.event for item in heard if item.event]
        ids = {item.envelope.id for item in heard if item.envelope}
        if self._any_parked or not len(heard) == len(events) == len(ids):
            return False
        try:
            statement = self._dispatcher.at_once(events)
            if statement is None:
                return False
            async with self._database.by_keys.acquire() as connection:
                said = await at_once.hear(connection, fence, ids, statement)
        except Exception as error:
            if is_transient(error):
                raise
            AT_ONCE.labels("refused").inc()
            log.info("not_heard_at_once", reason=reason_of(error), events=len(heard))
            return False  # nothing was done; step by step it is found what is amiss
        failpoints.reach("transaction.committed")
        self._tell(said)
        self._poison_in_a_row = 0
        AT_ONCE.labels("heard").inc()
        HEARD.labels(heard[0].type_name).inc(len(heard))
        return True

    def _tell(self, said: Sequence[asyncpg.Record]) -> None:
        """Wake whoever goes on with what was committed."""
        if self._relay is not None and self._relay.send_ahead(said):
            self._database.wake.ring_here(but=self._relay.bell)
        else:
            self._database.wake.ring()

    async def _attempt(self, heard: Sequence[Heard], fence: Fence, *, carefully: bool) -> None:
        async with self._database.transaction(is_known_to_write=True) as tx:
            fresh, any_parked = await self._only_new(heard, fence, tx)
            failpoints.reach("inbox.remembered")
            if carefully or any_parked:
                fresh = await self._without_parked(fresh, tx)
            if carefully:
                await self._one_by_halves(fresh, tx)
            else:
                for round_ in in_rounds(fresh):
                    await self._dispatcher.handle([h.event for h in round_ if h.event], tx)
            failpoints.reach("inbox.handled")
        if not carefully and fresh:
            self._poison_in_a_row = 0
        for type_name, count in Counted(item.type_name for item in fresh).items():
            HEARD.labels(type_name).inc(count)

    async def _only_new(
        self, heard: Sequence[Heard], fence: Fence, tx: Connection
    ) -> tuple[Sequence[Heard], bool]:
        """Move on and remember the events; those remembered before drop out.

        Unreadable ones have no id.

        Returns:
            The new ones, and whether any lane at all has an open dead letter.
        """
        # The first of those with the same id, because it is written last.
        unique = {h.envelope.id: h for h in reversed(heard) if h.envelope is not None}
        row = await tx.fetchrow(_REMEMBER, *fence, ids_text(unique), len(unique))
        assert row is not None  # noqa: S101  # an aggregate always has one
        fence.demand(row["moved"])
        any_parked: bool = row["any_parked"]
        self._any_parked = any_parked
        if row["new"] == len(heard):
            return heard, any_parked
        new_ids = unique.keys() if row["new_ids"] is None else set(row["new_ids"])
        fresh = [
            item
            for item in heard
            if item.envelope is None
            or (item.envelope.id in new_ids and unique[item.envelope.id] is item)
        ]
        REPEATS.inc(len(heard) - len(fresh))
        return fresh, any_parked

    async def _without_parked(self, fresh: Sequence[Heard], tx: Connection) -> Sequence[Heard]:
        """What may go on; what belongs behind an open dead letter is laid there."""
        parked = await dead_letters.parked(tx, {item.lane for item in fresh})
        if not parked:
            return fresh
        await self._lay_behind([item for item in fresh if item.lane in parked], tx)
        return [item for item in fresh if item.lane not in parked]

    async def _lay_behind(self, items: Sequence[Heard], tx: Connection) -> None:
        for item in items:
            await dead_letters.lay_aside(
                tx,
                item.record,
                item.envelope,
                "waiting",
                "an earlier event of this key is laid aside",
            )

    async def _one_by_halves(self, fresh: Sequence[Heard], tx: Connection) -> None:
        """Apply what can be applied, find what cannot, keep each key's order."""
        parked: set[dead_letters.Lane] = set()
        readable = []
        for item in fresh:
            if item.event is None or item.lane in parked:
                await self._lay_aside(item, item.problem, parked, tx)
            else:
                readable.append(item)
        for round_ in in_rounds(readable):
            await self._bisect(round_, parked, tx)

    async def _bisect(
        self, items: Sequence[Heard], parked: set[dead_letters.Lane], tx: Connection
    ) -> None:
        behind = [item for item in items if item.lane in parked]
        for item in behind:
            await self._lay_aside(item, None, parked, tx)
        items = [item for item in items if item.lane not in parked]
        if not items:
            return
        try:
            async with tx.transaction():  # a savepoint
                await self._dispatcher.handle([h.event for h in items if h.event], tx)
        except Exception as error:
            if is_transient(error):
                raise
            if len(items) == 1:
                await self._lay_aside(items[0], reason_of(error), parked, tx)
                return
            middle = len(items) // 2
            await self._bisect(items[:middle], parked, tx)
            await self._bisect(items[middle:], parked, tx)
        else:
            self._poison_in_a_row = 0

    async def _lay_aside(
        self,
        item: Heard,
        reason: str | None,
        parked: set[dead_letters.Lane],
        tx: Connection,
    ) -> None:
        if item.lane in parked:
            await self._lay_behind([item], tx)
            return
        self._poison_in_a_row += 1
        if self._poison_in_a_row > self._poison_limit:
            raise PoisonFlood(f"{self._poison_in_a_row} bad events in a row, last: {reason}")
        if item.envelope is not None:
            parked.add(item.lane)
        POISON.labels(item.type_name).inc()
        log.error(
            "event_laid_aside",
            type=item.type_name,
            reason=reason,
            topic=item.record.topic,
            offset=item.record.offset,
        )
        await dead_letters.lay_aside(
            tx,
            item.record,
            item.envelope,
            "poison",
            reason or "unreadable",
            mirror_prefix=self._dispatcher.prefix,
        )
