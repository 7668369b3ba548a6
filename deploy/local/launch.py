"""Starting every part of a suite in the shortest order, and stopping it in the safest one.

PostgreSQL, Kafka and the outside start together. The databases are migrated while Kafka is still
coming up; the APIs start as soon as their tables are there, the workers when Kafka answers too.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import asyncpg
import httpx

from deploy.local.databases import create_databases, drop_databases
from deploy.local.doors import answers, require_listener
from deploy.local.interruption import uninterrupted
from deploy.local.kafka import Kafka
from deploy.local.plan import HOST, Plan
from deploy.local.postgres import Postgres
from deploy.local.processes import LocalRunnerError, spawn, tail
from deploy.local.supervision import PythonProcess, Supervisor

ROOT = Path(__file__).resolve().parents[2]
READY_LIMIT_SECONDS = 90.0
STOP_LIMIT_SECONDS = 30.0
_READY_POLL_SECONDS = 0.1
_UVICORN = ("--no-access-log", "--lifespan", "on", "--timeout-graceful-shutdown", "20")


class Launch:
    """All parts of one suite.

    Attributes:
        postgres: None where the caller has a server of their own; so for `kafka`.
        services: The services' processes by name: `contacts`, `contacts-worker` ...
        seconds: How long each part of the start took.
    """

    def __init__(
        self,
        plan: Plan,
        supervisor: Supervisor,
        http: httpx.AsyncClient,
        say: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._supervisor = supervisor
        self._http = http
        self._say = say
        self._logs = plan.data / "logs"
        self.seconds: dict[str, float] = {}
        self.postgres = self.kafka = None
        if plan.foreign_postgres is None:
            self.postgres = Postgres(
                plan.data / "postgres", plan.ports.postgres, log=self._logs / "postgres.log"
            )
        if plan.foreign_kafka is None:
            self.kafka = Kafka(
                plan.data / "kafka",
                plan.ports.kafka_nodes(plan.nodes),
                plan.ports.controller_nodes(plan.nodes),
                logs=self._logs,
            )
        outside = ["--data", str(plan.data / "outside"), "--ports", json.dumps(asdict(plan.ports))]
        self.outside = self._python("outside", ["deploy.local.outside", *outside], os.environ)
        self.services: dict[str, PythonProcess] = {}
        for service in plan.services:
            api = ["uvicorn", f"services.{service}.main:app", "--host", HOST, *_UVICORN]
            api += ["--port", str(plan.ports.api(service))]
            self.services[service] = self._python(service, api, plan.environment_of(service))
        for service in plan.services:
            name = f"{service}-worker"
            worker = [f"services.{service}.worker"]
            self.services[name] = self._python(name, worker, plan.environment_of(service))

    async def start(self) -> None:
        """Start everything and wait until it is ready.

        Raises:
            LocalRunnerError: A part did not start. The others may run: `stop` them.
        """
        began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                outside = group.create_task(self._timed("outside", self._start_outside()))
                kafka = group.create_task(self._timed("Kafka", self._start_kafka()))
                await self._timed("PostgreSQL", self._start_postgres())
                await self._timed("migrations", self._migrate())
                self._start_services(self._plan.services)
                await kafka
                self._start_services([f"{service}-worker" for service in self._plan.services])
                await outside
                await self._timed("services", self._await_services())
        except BaseExceptionGroup as problems:
            expected = problems.subgroup(LocalRunnerError)
            if expected is not None:
                raise _first(expected) from None
            raise
        self.seconds["all"] = time.monotonic() - began

    def stop(self) -> None:
        """Stop what runs: APIs, workers, outside, Kafka, PostgreSQL. Blocks; safe to repeat.

        The APIs go first, so nothing new comes in while the workers finish their transactions.
        """
        names = self._plan.services
        workers = [self.services[f"{service}-worker"] for service in names]
        self._stop_together([self.services[service] for service in names])
        self._stop_together(workers)
        self._stop_together([self.outside])
        for name, part in (("Kafka", self.kafka), ("PostgreSQL", self.postgres)):
            if part is not None and not part.stop(STOP_LIMIT_SECONDS):
                self._say(f"{name} did not stop within {STOP_LIMIT_SECONDS:.0f} s: killed")

    async def _timed(self, name: str, work: Awaitable[None]) -> None:
        began = time.monotonic()
        await work
        self.seconds[name] = time.monotonic() - began
        self._say(f"  {name:<12} {self.seconds[name]:5.1f} s")

    async def _start_postgres(self) -> None:
        plan, own = self._plan, self.postgres
        if own is not None:
            await uninterrupted(partial(bring_up, own))
            self._supervisor.watch("postgres", own)
        server = plan.foreign_postgres or (own.url if own else "")
        databases = list(plan.databases.values())
        try:
            if plan.foreign_postgres and plan.empty:
                await drop_databases(server, databases)
            await create_databases(server, databases)
        except (OSError, asyncpg.PostgresError, BaseExceptionGroup) as problem:
            cause = problem.exceptions[0] if isinstance(problem, BaseExceptionGroup) else problem
            raise LocalRunnerError(f"The databases cannot be made: {cause}") from problem

    async def _migrate(self) -> None:
        log = self._logs / "migrations.log"

        def run() -> int:
            arguments = [sys.executable, "-m", "libs.shared.migrations"]
            arguments += self._plan.services
            environment = self._plan.environment_of_migrations()
            return spawn(arguments, log=log, env=environment, cwd=ROOT).wait(READY_LIMIT_SECONDS)

        if await uninterrupted(run) != 0:
            raise LocalRunnerError(f"The migrations failed.\n{tail(log)}")

    async def _start_kafka(self) -> None:
        kafka = self.kafka
        if kafka is None:
            await require_listener("Kafka (BAZA_KAFKA)", self._plan.kafka)
            return
        await uninterrupted(partial(bring_up, kafka))
        for node in kafka.nodes:
            self._supervisor.watch(f"kafka-{node.number}", node)

    async def _start_outside(self) -> None:
        self.outside.start()
        self._supervisor.watch("outside", self.outside)
        await self._await_ready({"outside": self._plan.outside_url})

    def _start_services(self, names: Sequence[str]) -> None:
        for name in names:
            self.services[name].start()
            self._supervisor.watch(name, self.services[name])

    async def _await_services(self) -> None:
        ports, names = self._plan.ports, self._plan.services
        doors = {service: f"http://{HOST}:{ports.api(service)}" for service in names}
        doors |= {f"{s}-worker": f"http://{HOST}:{ports.worker(s)}" for s in names}
        await self._await_ready(doors)

    async def _await_ready(self, doors: dict[str, str]) -> None:
        """Wait until every process answers at /readyz of its base URL."""
        missing = dict(doors)
        deadline = time.monotonic() + READY_LIMIT_SECONDS
        while missing:
            for name, url in list(missing.items()):
                if await answers(self._http, url):
                    del missing[name]
            self._supervisor.require_alive()
            if missing and time.monotonic() > deadline:
                logs = "\n".join(tail(self._logs / f"{name}.log") for name in missing)
                raise LocalRunnerError(f"Not ready in time: {', '.join(missing)}.\n{logs}")
            if missing:
                await asyncio.sleep(_READY_POLL_SECONDS)

    def _stop_together(self, processes: Sequence[PythonProcess]) -> None:
        for process in processes:
            process.begin_stop()
        deadline = time.monotonic() + STOP_LIMIT_SECONDS
        for process in processes:
            if not process.stop(max(0.1, deadline - time.monotonic())):
                self._say(f"{process.name} did not stop within {STOP_LIMIT_SECONDS:.0f} s: killed")

    def _python(self, name: str, module: list[str], env: Mapping[str, str]) -> PythonProcess:
        arguments = [sys.executable, "-m", *module]
        return PythonProcess(name, arguments, env=env, log=self._logs / f"{name}.log", cwd=ROOT)


def bring_up(part: Postgres | Kafka) -> None:
    """Start it and wait until it is ready; blocks."""
    part.start()
    part.await_ready()


def _first(problems: BaseExceptionGroup[LocalRunnerError]) -> LocalRunnerError:
    problem = problems.exceptions[0]
    return _first(problem) if isinstance(problem, BaseExceptionGroup) else problem
