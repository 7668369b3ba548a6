"""The program of docs/subscribing.md against real scoring: killed, started again, never wrong."""

import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from deploy.local.demo import purchases_story
from deploy.local.demo.doors import Doors, until
from deploy.local.ports import Ports
from deploy.local.suite import Suite
from libs.shared.events import DealClosed, Event, SegmentChanged
from libs.shared.ids import new_id
from libs.shared.kafka import Outgoing, Publisher
from tests.e2e.conftest import START
from tests.shared.streams import record_of

PROGRAM = Path(__file__).resolve().parents[2] / "docs/examples/segments_subscriber.py"
CLIENTS = [new_id() for _ in range(120)]
DAYS = range(0, 500, 20)  # of purchases, each of a third of the clients
PURCHASES = len(DAYS) * len(CLIENTS) // 3
ERASED = 2**62

Table = dict[str, tuple[int, str | None]]


@pytest.fixture
async def scoring(data: Path, ports: Ports) -> AsyncIterator[Suite]:
    async with Suite.open(
        data=data,
        ports=ports,
        services=["scoring"],
        sandbox=True,
        clock_start=START,
        signals=False,
    ) as running:
        yield running


class ForeignSystem:
    """Somebody else's process, with a table of its own."""

    def __init__(self, kafka: str, file: Path) -> None:
        self._kafka = kafka
        self._file = file
        self._log = file.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextmanager
    def running(cls, kafka: str, file: Path) -> Iterator["ForeignSystem"]:
        system = cls(kafka, file)
        system.start()
        try:
            yield system
        finally:
            system.kill()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM), self._kafka, str(self._file)],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        self._process.kill()
        self._process.wait()

    def said(self) -> list[str]:
        return self._log.read_text().splitlines()

    def heard(self) -> int:
        return sum(place for (place,) in self._select("SELECT next FROM place"))

    def table(self) -> Table:
        rows = self._select("SELECT id, seq, segment FROM client")
        return {client: (seq, segment) for client, seq, segment in rows}

    def _select(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._file)) as database:
            try:
                return database.execute(query).fetchall()
            except sqlite3.OperationalError:  # it has not made its tables yet
                return []


async def buy(publisher: Publisher, day: int) -> None:
    """Every third client buys something, as contacts would tell it."""
    at = START - timedelta(days=600 - day)
    deals = [
        DealClosed(
            deal_id=new_id(),
            client_id=client,
            closed_at=at,
            amount_minor=700 * (1 + number % 50),
            currency="USD",
            occurred_at=at,
        )
        for number, client in enumerate(CLIENTS)
        if number % 3 == day % 3
    ]
    await publisher.send_all([outgoing(deal) for deal in deals])


def outgoing(event: Event) -> Outgoing:
    record = record_of(event)
    return Outgoing(record.topic, event.key.encode(), record.value, record.headers)


def moved(client: UUID, seq: int) -> Outgoing:
    event = SegmentChanged(
        client_id=client,
        seq=seq,
        new_segment=f"segment-{seq}",
        rule_version=1,
        as_of=START.date(),
        reason="purchase",
        occurred_at=START,
    )
    return outgoing(event)


async def scores(doors: Doors) -> Table:
    return {
        score["client_id"]: (score["seq"], score["segment"])
        for score in await doors.all_pages("scoring", "/v1/scores")
    }


async def has_heard_more(system: ForeignSystem, doors: Doors, than: int) -> int:
    """Wait until it has heard more, or all there is: it may have been quick."""

    async def more() -> bool:
        return system.heard() > than or system.table() == await scores(doors)

    await until("the subscriber goes on", more, limit=20)
    return system.heard()


async def at_rest(doors: Doors) -> None:
    """Wait until scoring has counted every purchase and nobody's age is left to be looked at.

    Without it the two tables may agree on the way: about purchases that scoring still has to hear.
    """

    async def still() -> bool:
        counted = await doors.call("GET", "scoring", "/v1/segments", by="analyst")
        shown = await doors.call("GET", "scoring", "/v1/sandbox/clock", by="admin")
        now = datetime.fromisoformat(shown["now"])
        found = await doors.all_pages("scoring", "/v1/scores")
        ages = [datetime.fromisoformat(s["changes_at"]) for s in found if s["changes_at"]]
        return counted["purchases"] == PURCHASES and all(now < age for age in ages)

    await until("scoring is at rest", still, limit=20)


async def same_table(system: ForeignSystem, doors: Doors) -> Table:
    """Wait until the foreign table is that of scoring at rest; that table."""
    await at_rest(doors)

    async def same() -> bool:
        return system.table() == await scores(doors)

    await until("the foreign table is scoring's", same, limit=20)
    return system.table()


async def what_is_told_of(
    system: ForeignSystem, publisher: Publisher, seqs: list[int], client: UUID
) -> list[str]:
    """What the system says while a client moves like this and is then erased."""
    changes = [moved(client, seq) for seq in seqs]
    await publisher.send_all([*changes, changes[0]._replace(value=None)])

    async def erased() -> bool:
        return system.table().get(str(client), (0, None))[0] == ERASED

    await until("the erasure is heard", erased, limit=20)
    return [line for line in system.said() if str(client) in line]


@pytest.mark.timeout(120)
async def test_a_foreign_system_ends_with_scorings_table_however_often_it_dies(
    scoring: Suite, tmp_path: Path
) -> None:
    publisher = Publisher(scoring.kafka, client_id="contacts")
    async with Doors.open(scoring) as doors:
        await purchases_story.activate_rules(doors)
        await buy(publisher, DAYS[0])
        with ForeignSystem.running(scoring.kafka, tmp_path / "first.db") as system:
            heard = 0
            for day in DAYS[1:]:
                await buy(publisher, day)
                if day % 120 == 0:
                    heard = await has_heard_more(system, doors, heard)
                    system.kill()
                    await scoring.advance(timedelta(days=30))
                    system.start()
            first = await same_table(system, doors)
            gaps = [line for line in system.said() if line.startswith("gap")]

        with ForeignSystem.running(scoring.kafka, tmp_path / "second.db") as system:
            second = await same_table(system, doors)
            told = await what_is_told_of(system, publisher, [1, 2, 2, 4, 3], client := new_id())
            erased = system.table()[str(client)]
    await publisher.close()

    assert gaps == []
    assert told == [f"repeat {client} 2", f"gap {client} 4", f"repeat {client} 3"]
    assert erased == (ERASED, None)
    assert first == second
    assert len(first) == len(CLIENTS)
    assert sum(seq for seq, _ in first.values()) > 3 * len(CLIENTS)
