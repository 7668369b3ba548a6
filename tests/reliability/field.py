"""Everything that runs in a chaos run: the suite on three brokers, ledgers, writers, managers."""

import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import asyncpg
import orjson

from deploy.local.databases import ServiceDatabase, create_databases
from deploy.local.launch import ROOT
from deploy.local.ports import SERVICES, Ports
from deploy.local.processes import LocalRunnerError, free_ports
from deploy.local.suite import Suite
from deploy.local.supervision import PythonProcess
from tests.reliability import claimant, ledger, writer
from tests.reliability.journal import entries
from tests.reliability.patience import PatientClient, Place

NODES = 3
RESTART_SECONDS = 0.5
PORT_BASES = range(20_000, 32_000, 150)
LEDGER = "ledger"
MANAGERS = 12
CLAIM_MINUTES = 2
# A message of a sender that died waits for the end of its lease, which is real time.
_QUICK_LEASES = {"BAZA_SEND_LEASE_SECONDS": "6", "BAZA_SEND_TIMEOUT_SECONDS": "3"}
_PLUMBING = ROOT / "libs/shared"


class Field:
    """The running parts and where their truth stands.

    Attributes:
        processes: Every Python process by name, those of the suite included.
        folder: Journals and failpoints.
    """

    def __init__(self, suite: Suite, folder: Path, seed: int) -> None:
        self.suite = suite
        self.folder = folder
        self.seed = seed
        self.managers: list[str] = []
        self.processes: dict[str, PythonProcess] = dict(suite.launch.services)
        self.place = Place(suite.urls, suite.outside_url, suite.webhook_secret)
        if suite.launch.postgres is None or suite.launch.kafka is None:
            raise LocalRunnerError("Chaos needs a PostgreSQL and a Kafka of its own")
        self.postgres = suite.launch.postgres
        self.kafka = suite.launch.kafka
        self._ports: dict[str, int] = {}
        self._ledger = ServiceDatabase("baza_ledger", "ledger")

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, seed: int, *, nodes: int = NODES) -> AsyncIterator["Field"]:
        """Start everything but the writers; stop it at the end of the block."""
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "armed").mkdir(parents=True)
        # Processes that are started later take it from there. Who is opened last has it.
        os.environ |= {"BAZA_FAILPOINTS": str(folder), **_QUICK_LEASES}
        log = (folder / "supervision.log").open("a", buffering=1)
        try:
            async with Suite.open(
                data=folder.parent / f"suite-{nodes}",
                ports=_ports(),
                sandbox=True,
                clock_start=writer.START,
                empty=True,
                nodes=nodes,
                longest_pause=RESTART_SECONDS,
                say=lambda line: print(line, file=log),
            ) as suite:
                field = cls(suite, folder, seed)
                try:
                    await field._prepare()
                    yield field
                finally:
                    field.end_extras()
        finally:
            if os.environ["BAZA_FAILPOINTS"] == str(folder):
                for name in ("BAZA_FAILPOINTS", *_QUICK_LEASES):
                    del os.environ[name]
            log.close()

    async def _prepare(self) -> None:
        await self._make_ledger_database()
        for number in (1, 2):
            self.start(f"{LEDGER}-{number}", self.ledger_process(f"{LEDGER}-{number}"))
        async with self.client("supervisor", "admin") as client:
            await self._hire(client)

    async def _make_ledger_database(self) -> None:
        await create_databases(self.postgres.url, [self._ledger])
        connection = await asyncpg.connect(self.ledger_url)
        try:
            for file in sorted(_PLUMBING.glob("plumbing_v*.sql")):
                await connection.execute(file.read_text())
            await connection.execute(ledger.TABLES)
        finally:
            await connection.close()

    async def _hire(self, client: PatientClient) -> None:
        found = await client.command("GET", "routing", "/v1/policies/claims")
        policy = {**found["body"], "claim_window_minutes": CLAIM_MINUTES}
        await client.command(
            "PUT",
            "routing",
            "/v1/policies/claims",
            {"body": policy, "reason": "chaos"},
            headers={"If-Match": "*"},
        )
        for number in range(MANAGERS):
            made = await client.command("POST", "routing", "/v1/managers", {"name": f"М {number}"})
            path = f"/v1/managers/{made['id']}/shift/start"
            await client.command("POST", "routing", path, {})
            self.managers.append(made["id"])

    @property
    def ledger_url(self) -> str:
        return self._ledger.url(self.postgres.url)

    def database_urls(self) -> dict[str, str]:
        """Every database with an outbox, by service."""
        urls = {service: self.suite.plan.database_url(service) for service in SERVICES}
        return urls | {LEDGER: self.ledger_url}

    def client(self, *roles: str) -> AbstractAsyncContextManager[PatientClient]:
        """A patient client of this suite, to be entered."""
        return PatientClient.open(self.place, "chaos", *roles)

    def ledger_process(self, name: str, group: str = LEDGER) -> PythonProcess:
        """Another process of the ledger; in a group of its own it is a zombie's twin."""
        environment = self.suite.plan.environment_of("scoring")
        (port,) = free_ports(1)
        self._ports[name] = port
        environment |= {"BAZA_DATABASE_URL": self.ledger_url, "BAZA_WORKER_PORT": str(port)}
        return self._python(name, ["tests.reliability.ledger", group], environment)

    def another_worker(self, service: str, number: int = 2) -> PythonProcess:
        """Another worker of a service, as somebody who scales out would start it."""
        environment = self.suite.plan.environment_of(service) | {"BAZA_WORKER_PORT": "0"}
        name = f"{service}-worker-{number}"
        return self._python(name, [f"services.{service}.worker"], environment)

    def door(self, name: str) -> str:
        """Where a process says whether it is ready."""
        service = name.removesuffix("-worker")
        if name in self._ports:
            return f"http://127.0.0.1:{self._ports[name]}"
        return self.suite.urls[name] if name == service else self.suite.worker_urls[service]

    def writer_process(self, name: str, **amounts: float | None) -> PythonProcess:
        """A writer; it goes on after the end of its journal.

        Args:
            amounts: `pause`, `deals`, `enough_deals`, `clients` and `leads` of its task.
        """
        task = writer.Task(name, self.seed, str(self.folder), self.place, **amounts)  # type: ignore[arg-type]  # some are whole
        arguments = ["tests.reliability.writer", orjson.dumps(asdict(task)).decode()]
        return self._python(f"writer-{name}", arguments, dict(os.environ))

    def claimant_process(self, *, page: int, claimed: float) -> PythonProcess:
        """The managers."""
        task = claimant.Task(
            self.seed, str(self.folder), self.place, self.managers, page=page, claimed=claimed
        )
        arguments = ["tests.reliability.claimant", orjson.dumps(asdict(task)).decode()]
        return self._python("claimant", arguments, dict(os.environ))

    def start(self, name: str, process: PythonProcess) -> None:
        """Start a process and keep it alive from now on."""
        process.start()
        self.processes[name] = process
        self.suite.supervisor.watch(name, process)

    def end(self, name: str, *, limit: float = 30.0) -> bool:
        """Let a process stop by itself; False if it had to be killed."""
        self.suite.supervisor.let_go(name)
        process = self.processes.pop(name)
        process.begin_stop()
        return process.stop(limit)

    def end_extras(self) -> None:
        """Stop what is not the suite's."""
        for name in [name for name in self.processes if name not in self.suite.launch.services]:
            self.end(name, limit=5)

    def journal_entries(self) -> int:
        """How many commands of the writers have been answered."""
        return sum(1 for path in self.folder.glob("writer-*.jsonl") for _ in entries(path))

    async def discard_ledger_letters(self) -> None:
        """Settle the ledger's dead letters; it has no API of its own."""
        connection = await asyncpg.connect(self.ledger_url)
        try:
            await connection.execute(
                "UPDATE dead_letters SET state = 'discarded' WHERE state = 'poison'"
            )
        finally:
            await connection.close()

    def deadlocks(self) -> int:
        """How many deadlocks PostgreSQL has had to break."""
        return self.postgres.log.read_text(errors="replace").count("deadlock detected")

    def _python(self, name: str, module: list[str], env: dict[str, str]) -> PythonProcess:
        log = self.suite.data / "logs" / f"{name}.log"
        return PythonProcess(name, [sys.executable, "-m", *module], env=env, log=log, cwd=ROOT)


def _ports() -> Ports:
    for base in PORT_BASES:
        ports = Ports.shifted(base)
        try:
            ports.require_free(nodes=NODES, own_postgres=True, own_kafka=True)
        except LocalRunnerError:
            continue
        return ports
    raise LocalRunnerError("no free ports")
