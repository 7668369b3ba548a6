"""The race of routing: `python -m tests.reliability.race` (`make race`).

Eight workers as in production hear leads from Apache Kafka, offer them and move what nobody claims,
while claims race their timeouts and workers are killed -9 and stopped, so that partitions change
hands again and again. The sandbox clock runs fast: a window of four minutes takes eight seconds.
Afterwards everything that was said of each lead is read back from Kafka and checked.
"""

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from libs.shared import kafka, migrations
from libs.shared.background import beside
from libs.shared.clock import Clock
from libs.shared.cloudevents import Envelope, decode_headers, encode_headers, event_class
from libs.shared.database import Database, is_transient
from libs.shared.errors import Conflict
from libs.shared.events import LeadReceived
from libs.shared.ids import new_id
from libs.shared.kafka import Outgoing, Publisher, Reader, Topic
from services.routing import handing_over
from services.routing.policy import ClaimPolicy
from services.routing.reports.explaining import replay
from tests.benchmarks.servers import Servers, new_database, running
from tests.routing.conftest import Routing
from tests.routing.history import check, unfair

PREFIX = "race."
LEADS = PREFIX + "leads"
PARTITIONS = 16
WORKERS = 8
MANAGERS = 20
CLAIMANTS = 6
KILL_SECONDS = 8.0
SPEED = 30  # the sandbox clock beside ours
TICK_SECONDS = 0.5
# Leads that are nobody's yet; more are not brought before some are claimed. With twice as many most
# lapse, and two cores do little else than moving them.
MOST_OPEN = 450
BATCH = 100
REPORT = Path(".data/chaos/race.json")
START = datetime(2026, 3, 2, 12, tzinfo=UTC)
_OPEN = "SELECT count(*) FROM leads WHERE state IN ('waiting', 'offered', 'queued')"
_OWNED = "SELECT count(*) FROM leads WHERE state IN ('claimed', 'converted', 'closed')"
_LEFT = f"SELECT ({_OPEN}) + (SELECT count(*) FROM outbox)"
# Any of them, so that those who claim side by side mostly mean different leads.
_LOOK = {
    "offered": """
        SELECT lead_id, manager_id, epoch FROM leads WHERE state = 'offered'
        ORDER BY due_at OFFSET $1 LIMIT 20
    """,
    "claimed": """
        SELECT lead_id, manager_id, epoch FROM leads WHERE state = 'claimed'
        ORDER BY lead_id DESC OFFSET $1 LIMIT 2
    """,
}
LOOK_FAR = 300


@dataclass
class Race:
    """One race.

    Attributes:
        claims: Lead, epoch and manager of each claim that was answered with success.
        refused: Claims that came too late, or from somebody else.
        killed, stopped: Workers.
    """

    servers: Servers
    url: str
    database: Database
    clock: Clock
    leads: int
    chance: random.Random
    claims: list[tuple[str, int, str]] = field(default_factory=list)
    refused: int = 0
    killed: int = 0
    stopped: int = 0
    brought: int = 0
    is_ending: bool = False
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self) -> None:
        """Start another worker."""
        environment = {
            "BAZA_DATABASE_URL": self.url,
            "BAZA_DATABASE_POOL": "4",
            "BAZA_KAFKA": self.servers.kafka,
            "BAZA_TOPIC_PREFIX": PREFIX,
            "BAZA_TOPIC_PARTITIONS": str(PARTITIONS),
            "BAZA_SANDBOX": "true",
            "BAZA_SANDBOX_OFFSET_SECONDS": "0",
            "BAZA_LOG_LEVEL": "CRITICAL",
        }
        command = [sys.executable, "-m", "services.routing.worker"]
        self.workers.append(subprocess.Popen(command, env={**os.environ, **environment}))

    async def disturb_for_ever(self) -> None:
        """Kill one worker after another, or let it stop and hand over its partitions."""
        while True:
            await asyncio.sleep(KILL_SECONDS)
            victim = self.workers.pop(self.chance.randrange(len(self.workers)))
            if victim.poll() is not None:
                raise RuntimeError(f"a worker has ended by itself: {victim.returncode}")
            if self.chance.random() < 0.75:
                victim.kill()
                self.killed += 1
            else:
                victim.send_signal(signal.SIGTERM)
                self.stopped += 1
            self.start()
            await asyncio.to_thread(victim.wait)

    async def bring(self, publisher: Publisher) -> None:
        """Let all leads stand in the topic, as fast as they are claimed; each tenth twice."""
        while self.brought < self.leads:
            while self.brought - await self.database.pool.fetchval(_OWNED) > MOST_OPEN:
                await asyncio.sleep(0.25)
            now = self.clock.now()
            events = [_received(now) for _ in range(min(BATCH, self.leads - self.brought))]
            await publisher.send_all([_outgoing(event) for event in events + events[::10]])
            self.brought += len(events)
            await asyncio.sleep(0.05)

    async def pass_time_for_ever(self) -> None:
        """Let the sandbox clock go faster than ours."""
        by = timedelta(seconds=(SPEED - 1) * TICK_SECONDS)
        while True:
            async with self.database.pool.acquire() as connection:
                await self.clock.advance(connection, by)
            self.database.wake.ring()
            await asyncio.sleep(TICK_SECONDS)

    async def claim_for_ever(self) -> None:
        """Claims in time and too late, by whom it is offered to and by others; some give back."""
        kept: list[Any] = []
        while True:
            for row in await self._look("offered"):
                if self.is_ending or self.chance.random() < 0.5:
                    await self.act("claim", row, row["manager_id"])
                elif self.chance.random() < 0.2:
                    await self.act("claim", row, new_id())
                else:
                    kept.append(row)
            if not self.is_ending:
                for row in await self._look("claimed"):
                    verb = self.chance.choice(("release", "convert", "close"))
                    await self.act(verb, row, row["manager_id"])
            while len(kept) > 60:  # most have gone to somebody else long since
                row = kept.pop(0)
                await self.act("claim", row, row["manager_id"])
            await asyncio.sleep(0.01)

    async def _look(self, state: str) -> list[Any]:
        far = self.chance.randrange(LOOK_FAR)
        rows = await self.database.pool.fetch(_LOOK[state], far)
        return list(rows) or list(await self.database.pool.fetch(_LOOK[state], 0))

    async def act(self, verb: str, row: Any, by: UUID) -> None:
        """Do something with a lead, as the API does."""
        more: dict[str, Any] = {
            "claim": {"by": by, "epoch": row["epoch"]},
            "release": {"by": by, "epoch": row["epoch"], "reason": "занят"},
            "convert": {"by": by, "epoch": row["epoch"], "deal_id": None},
            "close": {"by": by, "epoch": row["epoch"], "reason": "spam"},
        }[verb]
        try:
            async with self.database.session() as session:
                told = {**more, "now": self.clock.now()}
                await getattr(handing_over, verb)(session, row["lead_id"], **told)
        except Conflict:
            self.refused += 1
        except Exception as error:
            if not is_transient(error):
                raise
        else:
            if verb == "claim":
                self.claims.append((str(row["lead_id"]), row["epoch"], str(by)))

    async def until_all_have_an_owner(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait until every lead that was brought is somebody's or is done with."""
        self.is_ending = True
        while True:
            for task in tasks:
                if task.done():
                    task.result()
            known = await self.database.pool.fetchval("SELECT count(*) FROM leads")
            if known == self.leads and not await self.database.pool.fetchval(_LEFT):
                return
            await asyncio.sleep(0.2)


def _received(now: datetime) -> LeadReceived:
    return LeadReceived(
        lead_id=new_id(),
        client_id=new_id(),
        source="race",
        channel="form",
        is_returning=False,
        occurred_at=now,
    )


def _outgoing(event: LeadReceived) -> Outgoing:
    headers = encode_headers(
        Envelope(event.event_id, "/race", event.wire_type(), event.occurred_at, event.key)
    )
    return Outgoing(LEADS, event.key.encode(), event.data(), headers)


@asynccontextmanager
async def _prepared(servers: Servers, leads: int, seed: int) -> AsyncIterator[Race]:
    topics = [Topic(PREFIX + name) for name in ("leads", "segments", "touches")]
    await kafka.ensure_topics(servers.kafka, topics, partitions=PARTITIONS, replication=1)
    url = await new_database(servers.postgres, "race")
    await migrations.upgrade("routing", url)
    clock = Clock(sandbox=True, first_offset=START - datetime.now(UTC))
    async with (
        Database.open(url, name="race", pool_size=CLAIMANTS + 4) as database,
        clock.running(database.pool, database.wake),
    ):
        routing = Routing(database)
        for _ in range(MANAGERS):
            await routing.manager()
        await routing.policy(
            ClaimPolicy(
                claim_window_minutes=4,
                alert_minutes=1,
                queue_again_minutes=1,
                most_open_leads=100_000,
            )
        )
        yield Race(servers, url, database, clock, leads, random.Random(seed))


async def run(leads: int, seed: int) -> dict[str, Any]:
    """One race from empty servers to the report."""
    began = time.monotonic()
    with running() as servers:
        async with _prepared(servers, leads, seed) as race:
            await _drive(race)
            seconds = time.monotonic() - began
            _say(began, "all leads have an owner; what was said is read back")
            return {"seed": seed, "seconds": round(seconds), **await _verdict(race)}


async def _drive(race: Race) -> None:
    publisher = Publisher(race.servers.kafka, client_id="race")
    for _ in range(WORKERS):
        race.start()
    try:
        async with (
            beside(race.pass_time_for_ever(), name="time"),
            beside(_tell_for_ever(race), name="progress"),
        ):
            tasks = [asyncio.create_task(race.claim_for_ever()) for _ in range(CLAIMANTS)]
            try:
                async with beside(race.disturb_for_ever(), name="kills"):
                    await race.bring(publisher)
                await race.until_all_have_an_owner(tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await publisher.close()
        for worker in race.workers:
            worker.kill()
            worker.wait()


async def _tell_for_ever(race: Race) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(20)
        told = f"{race.brought} leads, {len(race.claims)} claims, {race.killed} kills"
        _say(began, told)


def _say(began: float, what: str) -> None:
    print(f"{time.monotonic() - began:7.1f} s  {what}", file=sys.stderr, flush=True)


async def _verdict(race: Race) -> dict[str, Any]:
    verdict = check(await _history(race.servers.kafka), claims=race.claims)
    pool = race.database.pool
    stored = await pool.fetchval("SELECT count(*) FROM leads")
    wrong_loads = 0 if await Routing(race.database).loads_are_right() else 1
    outcomes: list[dict[str, Any]] = []
    for row in await pool.fetch("SELECT outcomes FROM sittings"):
        outcomes += orjson.loads(row["outcomes"])
    had = Counter(o["manager_id"] for o in outcomes if o["manager_id"])
    async with pool.acquire() as connection:
        again = await replay(connection, START - timedelta(days=1), START + timedelta(days=365))
    return {
        "workers": WORKERS,
        "killed": race.killed,
        "stopped": race.stopped,
        "leads": stored,
        "leads_lost": race.leads - stored,
        "claims": len(race.claims),
        "claims_refused": race.refused,
        "lapsed": verdict.names["lead.unclaimed"],
        "offers": sum(had.values()),
        "offers_of_a_manager": [min(had.values()), max(had.values())],
        "history_breaks": len(verdict.wrong),
        "turns_unfair": len(unfair(outcomes)),
        "loads_wrong": wrong_loads,
        "decisions_replayed": again.checked,
        "decisions_differing": len(again.differing) + again.skipped,
        "findings": verdict.wrong[:5] + unfair(outcomes)[:5],
    }


async def _history(bootstrap: str) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """What was said of each lead, each event at its first appearance."""
    seen: set[UUID] = set()
    history: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    async with Reader(bootstrap, [LEADS]).open() as reader:
        while True:
            records = await reader.fetch(wait_seconds=0.5)
            for record in records:
                envelope = decode_headers(record.headers)
                kind = event_class(envelope.type)
                if kind is None or envelope.id in seen:
                    continue
                seen.add(envelope.id)
                history[envelope.key].append((kind.event_name, orjson.loads(record.value or b"{}")))
            if not records and await reader.at_end():
                return history


MUST_BE_ZERO = (
    "leads_lost",
    "history_breaks",
    "turns_unfair",
    "loads_wrong",
    "decisions_differing",
)


def failures(told: dict[str, Any]) -> list[str]:
    """What a race has not kept, or not tried."""
    wrong = [f"{name} is {told[name]}, must be 0" for name in MUST_BE_ZERO if told[name]]
    tried = ("killed", "claims_refused", "lapsed", "decisions_replayed")
    return wrong + [f"{name} is 0: that was not tried" for name in tried if not told[name]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.race")
    parser.add_argument("--leads", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    told = asyncio.run(run(arguments.leads, arguments.seed))
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"\n")
    print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())
    wrong = failures(told)
    for line in wrong:
        print(f"FAILED: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
