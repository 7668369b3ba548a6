"""Who breaks things: a seeded deck of faults, dealt out over the run.

Every fault is counted when it has really happened. Outages that the run itself makes longer than a
crash (all brokers away, a process stopped in its tracks, PostgreSQL down) are noted with their end:
a stall is counted from there.
"""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import asyncpg
from aiokafka.errors import KafkaError
from confluent_kafka import ElectionType
from confluent_kafka.admin import AdminClient

from deploy.local.processes import LocalRunnerError
from deploy.local.supervision import PythonProcess
from libs.shared.events import COMPACTED_TOPICS, TOPICS
from libs.shared.kafka import Probe
from libs.shared.outages import UNREACHABLE
from tests.reliability import injected
from tests.reliability.field import LEDGER, Field
from tests.reliability.outages import Outage

LEASE_SECONDS = 5.0  # after which a partition moves on; a pause is longer
STORM_ROUNDS = 2
STORM_SECONDS = 3.0
ZOMBIE_SECONDS = 5.0
READY_SECONDS = 40.0
# So many seconds before the end of a run such a fault begins at the latest, or all wait for it.
LASTING = {
    "kafka away": 25,
    "broker kill": 12,
    "leaders moved": 12,
    "pause": 12,
    "rebalance storm": 12,
    "zombie": 8,
}
TRIES = 3  # what a fault needs may itself be away
RETRY_SECONDS = 3.0
ACCEPTS_SECONDS = 20.0  # by then the API must have answered a command without any broker
SEND_SECONDS = 20.0  # what cannot even be sent in this time was not

# What a fault needs was itself away at the moment.
_AWAY = (*UNREACHABLE, KafkaError)

APIS = ("contacts", "scoring", "routing", "notifications")
WORKERS = tuple(f"{service}-worker" for service in APIS)
LEDGERS = (f"{LEDGER}-1", f"{LEDGER}-2")
DRIVERS = ("writer-0", "writer-1", "claimant")
PAUSED = (*WORKERS, *LEDGERS)

# How often each fault is in one deck; kills are per process.
DECK = {
    **{f"kill {name}": 1 for name in (*APIS, *WORKERS, *LEDGERS, *DRIVERS)},
    "postgres immediate restart": 1,
    "postgres kill": 1,
    "backends terminated": 10,
    "broker kill": 2,
    "leaders moved": 2,
    "pause": 2,
    "rebalance storm": 1,
    "duplicates": 6,
    "disorder": 6,
    "poison": 3,
    "kafka away": 1,
    "zombie": 1,
}


class Nemesis:
    """Deals out faults.

    Attributes:
        faults: How many of each kind have happened.
        outages: Those that stall by themselves.
        accepted_without_kafka: Commands that the API answered while no broker ran.
    """

    def __init__(
        self,
        field: Field,
        seed: int,
        *,
        away_seconds: float,
        long_away_seconds: float,
        clients: Sequence[str],
    ) -> None:
        self._field = field
        self._chance = random.Random(seed)
        self._away_seconds = away_seconds
        self._long_away_seconds = long_away_seconds
        self._clients = clients
        self._broker = asyncio.Lock()
        self._there = asyncio.Event()  # any broker at all
        self._there.set()
        self._paused: set[str] = set()
        self.faults: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.outages: list[Outage] = []
        self.accepted_without_kafka = 0

    async def run(self, seconds: float, *, decks: int, more: Mapping[str, int]) -> None:
        """Deal decks out over so many seconds, and wait until the last fault is over."""
        deck = list((Counter(DECK) + Counter(more)).elements())
        faults = [kind for _ in range(decks) for kind in self._shuffled(deck)]
        self._let_what_lasts_begin_early(faults, seconds)
        began = time.monotonic()
        async with asyncio.TaskGroup() as beside:
            for number, kind in enumerate(faults):
                due = began + seconds * number / len(faults)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                beside.create_task(self._inflict(kind), name=kind)

    def _let_what_lasts_begin_early(self, faults: list[str], seconds: float) -> None:
        for number, kind in enumerate(faults):
            latest = int((1 - LASTING.get(kind, 0) / seconds) * len(faults))
            if number > latest:
                shorter = [n for n in range(max(latest, 0) + 1) if faults[n] not in LASTING]
                if shorter:
                    other = self._chance.choice(shorter)
                    faults[number], faults[other] = faults[other], kind

    def _shuffled(self, deck: Sequence[str]) -> list[str]:
        return self._chance.sample(deck, len(deck))

    async def _inflict(self, kind: str) -> None:
        verb, _, name = kind.partition(" ")
        actions: dict[str, Callable[[], Awaitable[bool]]] = {
            "postgres immediate restart": partial(self._restart_postgres, signal.SIGQUIT),
            "postgres kill": partial(self._restart_postgres, signal.SIGKILL),
            "backends terminated": self._terminate_backends,
            "broker kill": self._kill_broker,
            "leaders moved": self._move_leaders,
            "pause": self._pause,
            "rebalance storm": self._storm,
            "duplicates": partial(self._send_again, shuffled=False),
            "disorder": partial(self._send_again, shuffled=True),
            "poison": self._poison,
            "kafka away": self._take_kafka_away,
            "zombie": self._zombie,
        }
        act = actions.get(kind) or (partial(self._kill, name) if verb == "kill" else None)
        if act is None:
            raise ValueError(kind)
        for _ in range(TRIES):
            try:
                happened = await act()
            except _AWAY as problem:
                self.failed[f"{kind}: {type(problem).__name__}"] += 1
            else:
                (self.faults if happened else self.failed)[kind] += 1
                if happened:
                    return
            await asyncio.sleep(RETRY_SECONDS)

    async def _kill(self, name: str) -> bool:
        """Kill a process, or one of several of the same kind."""
        kin = sorted(other for other in self._field.processes if other.startswith(f"{name}-"))
        if name in WORKERS:
            name = self._chance.choice([name, *kin])
        process = self._field.processes[name]
        if not process.is_running() or name in self._paused:
            return False
        process.kill()
        return True

    async def _restart_postgres(self, how: signal.Signals) -> bool:
        server = self._field.postgres
        if not server.is_running():
            return False
        began = time.time()
        if how is signal.SIGKILL:
            await asyncio.to_thread(server.kill)
        else:
            os.kill(server.pid, how)
        await self._until_postgres_answers()
        self.outages.append(Outage("postgres", began, time.time()))
        return True

    async def _until_postgres_answers(self) -> None:
        async with asyncio.timeout(READY_SECONDS):
            await asyncio.sleep(0.1)
            while True:
                with contextlib.suppress(OSError, asyncpg.PostgresError, TimeoutError):
                    connection = await asyncpg.connect(self._field.postgres.url, timeout=2)
                    await connection.close()
                    return
                await asyncio.sleep(0.1)

    async def _terminate_backends(self) -> bool:
        connection = await asyncpg.connect(self._field.postgres.url, timeout=5)
        try:
            ended = await connection.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity"
                " WHERE datname LIKE 'baza\\_%' ORDER BY random() LIMIT 5) AS victims"
            )
        finally:
            await connection.close()
        return bool(ended)

    async def _kill_broker(self) -> bool:
        async with self._broker:
            node = self._chance.choice(self._field.kafka.nodes)
            if not node.is_running():
                return False
            began = time.time()
            await asyncio.to_thread(node.kill)
            await self._until_brokers(limit=READY_SECONDS)
            self.outages.append(Outage("broker", began, time.time()))
        return True

    async def _until_brokers(self, limit: float) -> None:
        """Wait until all brokers are there and all topics can be written to.

        Brokers that answer again need some seconds until each partition has two replicas in sync;
        until then they refuse what they are sent.
        """
        probe = Probe(self._field.suite.kafka, (*TOPICS, *COMPACTED_TOPICS))
        try:
            async with asyncio.timeout(limit):
                while True:
                    await asyncio.sleep(0.3)
                    with contextlib.suppress(LocalRunnerError):
                        await asyncio.to_thread(self._field.kafka.await_ready, 0.2)
                        if await probe.answers(within_seconds=2):
                            return
        finally:
            await probe.close()

    async def _move_leaders(self) -> bool:
        """Give partitions back to their preferred leaders; after a broker's death many are not."""
        async with self._broker:
            admin = AdminClient({"bootstrap.servers": self._field.suite.kafka})
            future = admin.elect_leaders(ElectionType.PREFERRED)
            told = await asyncio.to_thread(future.result, 15)
        return any(error is None for error in told.values())

    async def _pause(self) -> bool:
        """Stop a process in its tracks for longer than its leases last."""
        name = self._chance.choice([name for name in PAUSED if name not in self._paused])
        process = self._field.processes[name]
        if not process.is_running():
            return False
        pid, began = process.pid, time.time()
        self._paused.add(name)
        service = name.removesuffix("-worker")
        stand_in = self._field.another_worker(service) if service in APIS else None
        if stand_in is not None:
            stand_in.start()
        try:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(LEASE_SECONDS + 3)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            self._paused.discard(name)
        self.outages.append(Outage("pause", began, time.time()))
        if stand_in is not None:
            await asyncio.to_thread(_end, stand_in)
        return True

    async def _storm(self) -> bool:
        """Members join and leave, again and again."""
        for _ in range(STORM_ROUNDS):
            extra = [self._field.another_worker(s) for s in ("scoring", "routing")]
            for process in extra:
                process.start()
            await asyncio.sleep(STORM_SECONDS)
            for process in extra:
                await asyncio.to_thread(_end, process)
        return True

    async def _send_again(self, *, shuffled: bool) -> bool:
        await self._there.wait()
        async with asyncio.timeout(SEND_SECONDS):
            return bool(
                await injected.send_again(self._field.suite.kafka, self._chance, shuffled=shuffled)
            )

    async def _poison(self) -> bool:
        await self._there.wait()
        async with asyncio.timeout(SEND_SECONDS):
            kafka = self._field.suite.kafka
            return bool(await injected.send_poison(kafka, self._chance, self._clients))

    async def _take_kafka_away(self) -> bool:
        """No broker at all; the API must go on accepting."""
        field = self._field
        async with self._broker:
            for node in field.kafka.nodes:
                field.suite.supervisor.let_go(f"kafka-{node.number}")
            self._there.clear()
            began = time.time()
            for node in field.kafka.nodes:
                if node.is_running():
                    await asyncio.to_thread(node.kill)
            answered = field.journal_entries()
            first = not self.faults["kafka away"]
            await asyncio.sleep(self._long_away_seconds if first else self._away_seconds)
            while field.journal_entries() == answered and time.time() < began + ACCEPTS_SECONDS:
                await asyncio.sleep(0.5)  # the API has just been killed and starts again
            self.accepted_without_kafka += field.journal_entries() - answered
            for node in field.kafka.nodes:
                await asyncio.to_thread(node.start)
                field.suite.supervisor.watch(f"kafka-{node.number}", node)
            await self._until_brokers(limit=READY_SECONDS)
            self.outages.append(Outage("kafka", began, time.time()))
            self._there.set()
        return True

    async def _zombie(self) -> bool:
        """Another group hears everything once more into the same inbox, at the same time."""
        twin = self._field.ledger_process("ledger-zombie", group="ledger-zombie")
        twin.start()
        await asyncio.sleep(ZOMBIE_SECONDS)
        twin.kill()
        return True


def _end(process: PythonProcess) -> None:
    process.begin_stop()
    process.stop(10)
