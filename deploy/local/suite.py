"""The whole suite on one machine: PostgreSQL, Kafka, the outside and the four services.

`Suite.open` starts everything, supervises it while the block runs, and stops it in an order in
which nothing in hand is lost. Its data folder belongs to one running suite at a time; what a
suite killed -9 left behind is ended before the next start.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import httpx

from deploy.local.data_folder import DataFolder
from deploy.local.doors import advance_clocks, issue_token
from deploy.local.interruption import cancelled_by_signals, uninterrupted
from deploy.local.launch import Launch
from deploy.local.plan import HOST, Plan
from deploy.local.ports import SERVICES, Ports
from deploy.local.processes import write_atomically
from deploy.local.supervision import LONGEST_PAUSE_SECONDS, Supervisor

_KILLED_PROCESSES_SECONDS = 5.0  # until their ports are free


def say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Suite:
    """A running suite; `open` is the way to one.

    Attributes:
        urls: Base URL of each service's API, by service.
        worker_urls: Base URL of each worker's management door (/livez, /readyz, /metrics).
        kafka: Bootstrap servers.
        topic_prefix: In front of every topic and group; empty with a Kafka of our own.
        webhook_secret: `whsec_...` of the webhook source `site-form`.
        launch: The parts themselves, for those who kill them on purpose.
        supervisor: Keeps the parts alive; may be given others to watch.
        seconds: How long each part of the start took.
    """

    def __init__(
        self, plan: Plan, launch: Launch, supervisor: Supervisor, http: httpx.AsyncClient
    ) -> None:
        ports, names = plan.ports, plan.services
        self.urls = {service: f"http://{HOST}:{ports.api(service)}" for service in names}
        self.worker_urls = {s: f"http://{HOST}:{ports.worker(s)}" for s in names}
        self.outside_url = plan.outside_url
        self.kafka = plan.kafka
        self.topic_prefix = plan.topic_prefix
        self.webhook_secret = plan.secrets.webhook
        self.data = plan.data
        self.ports = ports
        self.launch = launch
        self.supervisor = supervisor
        self.plan = plan
        self.seconds = launch.seconds
        self._http = http

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        data: Path,
        ports: Ports = Ports(),  # noqa: B008 - immutable
        services: Sequence[str] = SERVICES,
        sandbox: bool = False,
        clock_start: datetime | None = None,
        empty: bool = False,
        nodes: int = 1,
        signals: bool = True,
        longest_pause: float = LONGEST_PAUSE_SECONDS,
        say: Callable[[str], None] = say_on_stderr,
    ) -> AsyncIterator["Suite"]:
        """Run the suite for the time of the block.

        Args:
            clock_start: What a sandbox's clock shows at its first start; the real time if None.
            empty: Begin with nothing: the data of earlier runs are removed.
            nodes: Kafka nodes, 1 or 3; a data folder keeps to its number.
            signals: Let SIGINT and SIGTERM cancel the calling task (main thread only).
            longest_pause: Seconds until a part that died is started again, at most.
            say: Told what happens, line by line.

        Raises:
            LocalRunnerError: A port is taken, another suite has the folder, or a part did not
                start; whatever was started is stopped again.
        """
        with (
            cancelled_by_signals(say) if signals else nullcontext(),
            DataFolder.locked(data) as folder,
        ):
            was_killed = await uninterrupted(lambda: folder.take_over(say))
            if empty:
                folder.empty()
            plan = Plan.of(
                *(folder.path, ports),
                services=services,
                nodes=nodes,
                sandbox=sandbox,
                clock_start=clock_start,
                empty=empty,
            )
            await uninterrupted(
                partial(
                    ports.require_free,
                    nodes=nodes,
                    own_postgres=plan.foreign_postgres is None,
                    own_kafka=plan.foreign_kafka is None,
                    patience=_KILLED_PROCESSES_SECONDS if was_killed else 0,
                )
            )
            write_atomically(folder.path / "ports.json", json.dumps(asdict(ports)))
            supervisor = Supervisor(folder.roster, say, longest_pause)
            async with httpx.AsyncClient(timeout=60) as http:
                launch = Launch(plan, supervisor, http, say)
                try:
                    await launch.start()
                    async with _supervised(supervisor):
                        yield cls(plan, launch, supervisor, http)
                finally:
                    await uninterrupted(launch.stop)
                    folder.roster.clear()

    async def token(self, subject: str, roles: Sequence[str], manager_id: str | None = None) -> str:
        """A bearer token, valid for an hour of real time."""
        return await issue_token(
            self._http, self.outside_url, subject, roles, manager_id=manager_id
        )

    async def advance(self, by: timedelta) -> None:
        """Let time pass in every service of a sandbox."""
        await advance_clocks(self._http, self.outside_url, self.urls, by)


@asynccontextmanager
async def _supervised(supervisor: Supervisor) -> AsyncIterator[None]:
    supervision = asyncio.create_task(supervisor.run(), name="supervision")
    try:
        yield
    finally:
        supervision.cancel()
        await asyncio.wait([supervision])
