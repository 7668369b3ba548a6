"""The process behind a worker: a few loops that live and die together.

A worker hears events, sends the outbox, fires timers and answers its own health checks. When one of
the loops ends, for whatever reason, the others are stopped and the process ends with it: a dead
loop is a dead process, which the supervisor sees and starts again. SIGTERM and SIGINT stop the
loops between two transactions.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import structlog
import uvloop

from libs.shared import dead_letters, logging, management, telemetry, topics
from libs.shared.clock import Clock
from libs.shared.consumer import Consumer
from libs.shared.database import Connection, Database, is_transient
from libs.shared.forgetting import EVERY_SECONDS, forget_what_cannot_come_back
from libs.shared.garbage import spare_the_collector
from libs.shared.health import measure_loop_lag
from libs.shared.inbox import Inbox
from libs.shared.kafka import BrokerError, GroupOffsets, Probe, Publisher, Record, Subscriber
from libs.shared.lag import LagMeter
from libs.shared.leases import Leases
from libs.shared.relay import Relay
from libs.shared.settings import ServiceSettings
from libs.shared.subscriptions import Dispatcher, Subscription
from libs.shared.timers import Lookout, Timer, TimerLoop
from libs.shared.upkeep import keep_up
from libs.shared.vital_signs import VitalSigns
from libs.shared.wake import Bell
from libs.shared.watchdog import Watchdog

log = structlog.get_logger()

TOPIC_RETRY_SECONDS = 1.0
REPLAY_SECONDS = 0.1
NEED_TOPICS = frozenset({"relay", "consumer"})
STOP_SECONDS = 28.0  # supervisors kill after 30


@dataclass(slots=True)
class Worker:
    """What a service's worker consists of.

    Attributes:
        service: `contacts`; also the consumer group.
        timers: Given the database and clock are open: the due rows of this service.
        extras: Further loops; each must run until cancelled.
    """

    service: str
    settings: ServiceSettings
    subscriptions: Sequence[Subscription[Any]] = ()
    timers: Sequence[Timer] = ()
    extras: Sequence[Callable[[Database, Clock], Coroutine[Any, Any, None]]] = ()
    _loops: dict[str, Awaitable[None]] = field(default_factory=dict)

    async def run(self) -> None:
        """Run until a loop ends or the process is told to stop.

        Raises:
            ExceptionGroup: A loop failed; the process must exit with an error.
        """
        settings = self.settings
        clock = Clock(sandbox=settings.sandbox, first_offset=settings.sandbox_offset)
        async with (
            Watchdog.of(settings).watching() as watchdog,
            Database.open(
                str(settings.database_url),
                name=f"{self.service}-worker",
                pool_size=settings.database_pool,
            ) as database,
            clock.running(database.pool, database.wake),
            asyncio.TaskGroup() as group,
        ):
            dispatcher = Dispatcher(self.subscriptions, settings.topic_prefix)
            relay = self._relay(database)
            consumer = self._consumer(database, dispatcher, relay)
            topics_exist = asyncio.Event()
            making = group.create_task(_ensure_topics(settings, topics_exist), name="topics")
            loops = self._all_loops(database, clock, dispatcher, relay, consumer, watchdog)
            # Timers go on while the broker is away; what they say waits in the outbox.
            tasks = [
                group.create_task(
                    _after(topics_exist, loop) if name in NEED_TOPICS else loop, name=name
                )
                for name, loop in loops.items()
            ]
            stop = asyncio.Event()
            for signal_number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
            log.info("worker_started", service=self.service, loops=[t.get_name() for t in tasks])
            group.create_task(_cancel_when(stop, tasks, making, watchdog))

    def _relay(self, database: Database) -> Relay:
        return Relay(
            database.dsn,
            source=f"/{self.service}",
            publisher=Publisher(self.settings.kafka, client_id=f"{self.service}-relay"),
            bell=database.wake.bell(),
            prefix=self.settings.topic_prefix,
        )

    def _consumer(
        self, database: Database, dispatcher: Dispatcher, relay: Relay
    ) -> Consumer | None:
        if not self.subscriptions:
            return None
        settings = self.settings
        group, topics_heard = settings.topic_prefix + self.service, dispatcher.topics()
        return Consumer(
            Subscriber(
                settings.kafka,
                topics=topics_heard,
                fetch_wait_ms=settings.fetch_wait_ms,
            ),
            Leases(database.dsn, group=group, topics=topics_heard),
            Inbox(database, dispatcher, poison_limit=settings.poison_limit, relay=relay),
            GroupOffsets(settings.kafka, group),
            batch=settings.consumer_batch,
            relay_keeps_up=relay.keeps_up,
        )

    def _all_loops(
        self,
        database: Database,
        clock: Clock,
        dispatcher: Dispatcher,
        relay: Relay,
        consumer: Consumer | None,
        watchdog: Watchdog,
    ) -> dict[str, Coroutine[Any, Any, None]]:
        settings = self.settings
        lookout = Lookout([t for t in self.timers if t.alone is None], database, clock)
        timers = [
            TimerLoop(timer, database, clock, database.wake.bell(), lookout)
            for timer in self.timers
        ]
        signs = VitalSigns(
            dsn=database.dsn,
            sessions=database.sessions,
            clock=clock,
            watchdog=watchdog,
            patience=settings.watchdog_stuck,
            relay=relay,
            probe=Probe(settings.kafka, topics.names(settings)),
            timers=timers,
            meter=LagMeter(consumer) if consumer else None,
        )
        loops: dict[str, Coroutine[Any, Any, None]] = {
            "relay": relay.run(),
            "vital_signs": signs.run(),
            "loop_lag": measure_loop_lag(),
            "forgetting": keep_up(
                database,
                partial(forget_what_cannot_come_back, days=settings.inbox_retention_days),
                every=EVERY_SECONDS,
            ),
            "management": management.serve(
                database,
                settings.worker_host,
                settings.worker_port,
                ready=lambda: consumer is None or consumer.ready,
            ),
        }
        if consumer is not None:
            loops["consumer"] = consumer.run()
            loops["dead_letters"] = _replay_for_ever(
                database, clock, dispatcher, database.wake.bell()
            )
        loops |= {f"timer_{timer.timer.name}": timer.run() for timer in timers}
        for extra in self.extras:
            loops[extra.__name__] = extra(database, clock)
        return loops


def run_worker(worker: Worker) -> None:
    """Entry point of `worker.py`: run, and exit 1 when a loop failed."""
    spare_the_collector()
    logging.configure(f"{worker.service}-worker", worker.settings.log_level)
    telemetry.configure(worker.service, worker.settings.otlp_endpoint)
    try:
        uvloop.run(worker.run())
    except BaseException:
        log.exception("worker_died", service=worker.service)
        sys.exit(1)
    log.info("worker_stopped", service=worker.service)


async def _cancel_when(
    stop: asyncio.Event,
    tasks: Sequence[asyncio.Task[None]],
    making: asyncio.Task[None],
    watchdog: Watchdog,
) -> None:
    """Stop the loops when told to, or when one of them has ended.

    Args:
        making: Ends by itself when the broker has come; may be waiting for it in vain.
    """
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    watchdog.expect_end(seconds=STOP_SECONDS)
    ended = [task.get_name() for task in tasks if task.done()]
    for task in (*tasks, making):
        task.cancel()
    waiting.cancel()
    if ended and not stop.is_set():
        raise RuntimeError(f"loop ended: {', '.join(ended)}")


async def _ensure_topics(settings: ServiceSettings, exist: asyncio.Event) -> None:
    """Make the topics, however long the broker takes to come."""
    while True:
        try:
            await topics.ensure(settings)
        except BrokerError as error:
            log.warning("broker_awaited", error=type(error).__name__)
            await asyncio.sleep(TOPIC_RETRY_SECONDS)
        else:
            exist.set()
            return


async def _after(event: asyncio.Event, loop: Coroutine[Any, Any, None]) -> None:
    try:
        await event.wait()
    except asyncio.CancelledError:
        loop.close()
        raise
    await loop


async def _replay_for_ever(
    database: Database, clock: Clock, dispatcher: Dispatcher, bell: Bell
) -> None:
    """Go on with dead letters that were asked to be replayed."""

    async def handle(record: Record, tx: Connection) -> None:
        heard = dispatcher.read(record)
        if heard is None:
            return
        if heard.event is None:
            raise ValueError(heard.problem)
        await dispatcher.handle([heard.event], tx)

    while True:
        try:
            async with database.pool.acquire() as connection:
                while await dead_letters.next_replay(connection):
                    async with connection.transaction():
                        now: datetime = await clock.read(connection)
                        await dead_letters.replay_lanes(connection, now, handle)
                    database.wake.ring()
        except Exception as error:
            if not is_transient(error):
                raise
        if await bell.wait(1.0):
            await asyncio.sleep(REPLAY_SECONDS)  # one look for many commits
