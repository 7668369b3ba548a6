"""What stands in the databases at the end: the other half of what must agree with the truth."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import orjson

MOMENT_SECONDS = 5.0


class Applied(NamedTuple):
    """An application of an event; seconds since 1970."""

    event: UUID
    topic: str
    key: str
    said_by: str
    at: float


@dataclass(slots=True)
class Stored:
    """Rows of all services.

    Attributes:
        applied: The ledger's rows in their order.
        dead: Poison of each service: (service, topic, partition, offset).
    """

    applied: list[Applied] = field(default_factory=list)
    purchases: dict[str, int] = field(default_factory=dict)  # given back, by deal
    scores: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    shown_segments: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    clients: set[str] = field(default_factory=set)
    lead_ids: set[str] = field(default_factory=set)
    leads_of_forms: Counter[str] = field(default_factory=Counter)
    routed: dict[str, tuple[str, str | None, int]] = field(default_factory=dict)
    loads: dict[str, tuple[int, int]] = field(default_factory=dict)  # as kept and as counted
    outcomes: list[dict[str, Any]] = field(default_factory=list)  # of routing's sittings
    shown_leads: dict[str, tuple[str, str | None, int]] = field(default_factory=dict)
    dead: set[tuple[str, str, int, int]] = field(default_factory=set)
    waiting: int = 0
    open_letters: int = 0
    outbox: int = 0

    @classmethod
    async def of(cls, urls: Mapping[str, str]) -> "Stored":
        """Read all of it."""
        stored = cls()
        for service, url in urls.items():
            connection = await asyncpg.connect(url)
            try:
                stored.outbox += await _not_sent(connection)
                await stored._read_letters(service, connection)
                await getattr(stored, f"_read_{service}")(connection)
            finally:
                await connection.close()
        return stored

    async def _read_letters(self, service: str, connection: Any) -> None:
        for row in await connection.fetch(
            'SELECT topic, partition, "offset", state, reason FROM dead_letters'
        ):
            if row["reason"].startswith("an earlier event of this key"):
                self.waiting += 1
            else:
                self.dead.add((service, row["topic"], row["partition"], row["offset"]))
            self.open_letters += row["state"] in ("poison", "waiting", "replaying")

    async def _read_ledger(self, connection: Any) -> None:
        self.applied = [
            Applied(*row)
            for row in await connection.fetch(
                "SELECT event_id, topic, key, said_by, extract(epoch FROM applied_at)::float8"
                " FROM applied ORDER BY number"
            )
        ]

    async def _read_scoring(self, connection: Any) -> None:
        for row in await connection.fetch("SELECT deal_id, returned_minor FROM purchases"):
            self.purchases[str(row[0])] = row[1]
        for row in await connection.fetch("SELECT client_id, seq, segment FROM scores"):
            self.scores[str(row[0])] = (row[1], row[2])

    async def _read_contacts(self, connection: Any) -> None:
        for row in await connection.fetch("SELECT client_id, seq, segment FROM client_segments"):
            self.shown_segments[str(row[0])] = (row[1], row[2])
        self.clients = {str(row[0]) for row in await connection.fetch("SELECT id FROM clients")}
        for row in await connection.fetch(
            "SELECT l.id, l.state, l.manager_id, l.epoch, w.external_id FROM leads AS l"
            " LEFT JOIN webhook_requests AS w ON w.id = l.webhook_request_id"
        ):
            self.lead_ids.add(str(row[0]))
            self.shown_leads[str(row[0])] = (row[1], row[2] and str(row[2]), row[3])
            if row[4] is not None:
                self.leads_of_forms[row[4]] += 1

    async def _read_routing(self, connection: Any) -> None:
        for row in await connection.fetch("SELECT lead_id, state, manager_id, epoch FROM leads"):
            self.routed[str(row[0])] = (row[1], row[2] and str(row[2]), row[3])
        for row in await connection.fetch(
            "SELECT manager_id, open_leads, (SELECT count(*) FROM leads WHERE leads.manager_id ="
            " loads.manager_id AND state IN ('offered', 'claimed')) FROM loads"
        ):
            self.loads[str(row[0])] = (row[1], row[2])
        for row in await connection.fetch("SELECT outcomes FROM sittings"):
            self.outcomes += orjson.loads(row[0])

    async def _read_notifications(self, connection: Any) -> None:
        """Its effects are told by its events."""


async def _not_sent(connection: Any) -> int:
    """Events that nobody sends. What timers are saying just now is sent in a moment."""
    give_up_at = time.monotonic() + MOMENT_SECONDS
    while True:
        left: int = await connection.fetchval("SELECT count(*) FROM outbox")
        if not left or time.monotonic() > give_up_at:
            return left
        await asyncio.sleep(0.1)


# What a service still has to do by itself, beside sending its events.
IN_HAND = {
    "contacts": "SELECT count(*) FROM webhook_requests WHERE due_at IS NOT NULL",
    "notifications": "SELECT count(*) FROM deliveries WHERE state IN ('queued', 'sending')",
    "routing": "SELECT count(*) FROM leads WHERE state = 'waiting'",
}


async def in_hand(urls: Mapping[str, str]) -> dict[str, int]:
    """Events that are not sent yet and work that is not done yet, by service."""
    found: dict[str, int] = {}
    for service, url in urls.items():
        connection = await asyncpg.connect(url, timeout=5)
        try:
            found[f"{service} to send"] = await connection.fetchval("SELECT count(*) FROM outbox")
            if service in IN_HAND:
                found[f"{service} to do"] = await connection.fetchval(IN_HAND[service])
        finally:
            await connection.close()
    return found
