"""Baza made wrong on purpose: `python -m tests.reliability.mutant <variant> <module> [args]`.

Each variant is a mistake that somebody has made somewhere. The module then runs as it always does.
"""

import asyncio
import runpy
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from libs.shared import inbox
from libs.shared.consumer import Consumer
from libs.shared.database import Connection, Database
from libs.shared.events import Event
from libs.shared.inbox import Inbox
from libs.shared.kafka import Publisher, Record
from libs.shared.leases import Fence
from libs.shared.relay import Relay
from libs.shared.subscriptions import Heard


def offsets_first() -> None:
    """The position is committed before the effects are."""
    from libs.shared.consumer import _next_offsets

    async def try_once(self: Consumer, records: Sequence[Record]) -> bool:
        next_offsets = _next_offsets(records)
        async with self._inbox._database.transaction() as tx:
            await self.leases.fence(next_offsets).move(tx)
        self.leases.applied(next_offsets)
        await self._inbox.apply(records)
        return True

    Consumer._try_once = try_once  # type: ignore[method-assign]


def no_inbox() -> None:
    """Nobody remembers what was applied."""

    async def all_are_new(
        self: Inbox, heard: Sequence[Heard], fence: Fence, tx: Connection
    ) -> tuple[Sequence[Heard], bool]:
        await fence.move(tx)
        return heard, True

    Inbox._only_new = all_are_new  # type: ignore[method-assign]


def cursor_relay() -> None:
    """The relay follows the ids instead of looking at what is there."""
    cursor = 0

    async def send_once(self: Relay, connection: Any) -> int:
        nonlocal cursor
        rows = await connection.fetch(
            "SELECT * FROM outbox WHERE id > $1 ORDER BY id LIMIT 500", cursor
        )
        if not rows:
            return 0
        await self._publisher.send_all([o for row in rows for o in self._outgoing(row)])
        cursor = rows[-1]["id"]
        await connection.execute(
            "DELETE FROM outbox WHERE id = ANY($1::bigint[])", [row["id"] for row in rows]
        )
        return len(rows)

    Relay.send_once = send_once  # type: ignore[method-assign]
    Relay.send_ahead = _nothing_ahead  # type: ignore[assignment,method-assign]


def unsharded_relays() -> None:
    """Several relays take what no other has taken, as job queues do."""

    async def send_once(self: Relay, connection: Any) -> int:
        async with connection.transaction():
            rows = await connection.fetch(
                "SELECT * FROM outbox ORDER BY id LIMIT 20 FOR UPDATE SKIP LOCKED"
            )
            await self._publisher.send_all([o for row in rows for o in self._outgoing(row)])
            await connection.execute(
                "DELETE FROM outbox WHERE id = ANY($1::bigint[])", [row["id"] for row in rows]
            )
        return len(rows)

    one_relay = Relay.run

    async def run(self: Relay) -> None:
        others = [
            Relay(
                self._dsn,
                source=self._source,
                publisher=Publisher(self._publisher._bootstrap, client_id=f"relay-{n}"),
                bell=self.bell,
                prefix=self._prefix,
            )
            for n in range(3)
        ]
        async with asyncio.TaskGroup() as group:
            for each in (self, *others):
                group.create_task(one_relay(each))

    Relay.send_once = send_once  # type: ignore[method-assign]
    Relay.send_ahead = _nothing_ahead  # type: ignore[assignment,method-assign]
    Relay.run = run  # type: ignore[method-assign]


def _nothing_ahead(_self: Relay, _rows: Sequence[asyncpg.Record]) -> bool:
    """All that is said goes the wrong way of these relays."""
    return False


def no_epoch() -> None:
    """A claim is good for whoever was ever offered the lead."""
    from services.routing.lead import Lead

    def claim(self: Lead, *, by: UUID, epoch: int, at: datetime) -> list[Event]:
        if self.state == "claimed" and self.manager_id == by:
            return []
        self.manager_id = by
        self.state, self.claimed_at, self.due_at = "claimed", at, None
        return [self._claimed(by, at)]

    Lead.claim = claim  # type: ignore[method-assign]


def volatile_clock() -> None:
    """The statement asks the server what time it is, not the service's clock."""
    from services.routing import claim_timeout

    claim_timeout._LAPSE = _other(
        claim_timeout._LAPSE,
        "due_at <= $1 ",
        "due_at <= clock_timestamp() AND $1::timestamptz IS NOT NULL ",
    )


def unsorted_inbox() -> None:
    """Ids are remembered in whatever order they came."""
    inbox._REMEMBER = _other(inbox._REMEMBER, "ORDER BY id", "ORDER BY md5(id::text || random())")


def _other(statement: str, right: str, wrong: str) -> str:
    """A statement made wrong; it must not have been changed so that it stays right."""
    if right not in statement:
        raise ValueError(f"{right!r} is not in the statement any more")
    return statement.replace(right, wrong)


def swallowed_commit() -> None:
    """A commit that fails is logged, and life goes on."""

    @asynccontextmanager
    async def transaction(
        self: Database, *, is_known_to_write: bool = False
    ) -> AsyncIterator[Connection]:
        async with self.pool.acquire() as connection:
            ours = connection.transaction()
            await ours.start()
            try:
                yield connection
            except BaseException:
                await ours.rollback()
                raise
            try:
                await ours.commit()
            except asyncpg.PostgresError:
                return

    Database.transaction = transaction  # type: ignore[method-assign]


VARIANTS: dict[str, Callable[[], None]] = {
    "offsets first": offsets_first,
    "no inbox": no_inbox,
    "cursor relay": cursor_relay,
    "unsharded relays": unsharded_relays,
    "no epoch": no_epoch,
    "volatile clock": volatile_clock,
    "unsorted inbox": unsorted_inbox,
    "swallowed commit failure": swallowed_commit,
}

if __name__ == "__main__":
    VARIANTS[sys.argv[1]]()
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
