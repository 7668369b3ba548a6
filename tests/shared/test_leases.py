"""Leases on partitions: shared evenly, taken over fast, and nothing moves for who has lost one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from libs.shared.database import Database, is_transient
from libs.shared.kafka import Partition, Record
from libs.shared.leases import LeaseLost, Leases

LATE = "now() - interval '1 second'"
TOPIC = "deals"
PARTITIONS = {(TOPIC, number): 0 for number in range(8)}


@pytest.fixture
async def database(plumbing: Database) -> Database:
    return plumbing


@asynccontextmanager
async def worker(database: Database) -> AsyncIterator[Leases]:
    """Leases that are tended by the test alone."""
    leases = Leases(database.dsn, group="g", topics=[TOPIC])
    try:
        await leases.enter(PARTITIONS)
        yield leases
    finally:
        await leases._leave()


async def position(database: Database, partition: Partition) -> int:
    found: int = await database.pool.fetchval(
        "SELECT next_offset FROM consumer_positions WHERE topic = $1 AND partition = $2", *partition
    )
    return found


async def expire(database: Database) -> None:
    """Five seconds without a sign of life."""
    for table, column in (
        ("consumer_positions", "leased_until"),
        ("consumer_workers", "seen_until"),
    ):
        await database.pool.execute(f"UPDATE {table} SET {column} = now() - interval '1 second'")


def record(number: int, offset: int) -> Record:
    return Record(TOPIC, number, offset, b"k", b"{}", [], 0)


async def test_workers_share_evenly_whoever_comes_and_goes(database: Database) -> None:
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(worker(database)) for _ in range(3)]
        for _ in range(3):
            for each in workers:
                await each.refresh()
        assert sorted(len(each.held) for each in workers) == [2, 3, 3]
        held = [partition for each in workers for partition in each.held]
        assert sorted(held) == sorted(PARTITIONS)

        await workers[0]._leave()
        for _ in range(2):
            for each in workers[1:]:
                await each.refresh()
        assert [len(each.held) for each in workers[1:]] == [4, 4]


async def test_who_has_left_does_not_come_back(database: Database) -> None:
    async with worker(database) as leaver:
        await leaver.refresh()
        assert len(leaver.held) == len(PARTITIONS)
        await leaver._leave()
        await leaver.refresh()  # as a batch does that finds its partitions gone
        assert leaver.held == {}
        assert leaver._connection is None
    holders = "SELECT count(*) FROM consumer_positions WHERE worker_id IS NOT NULL"
    assert await database.pool.fetchval(holders) == 0


async def test_whose_session_has_ended_is_followed_at_once(database: Database) -> None:
    async with worker(database) as dead, worker(database) as heir:
        await dead.refresh()
        assert len(dead.held) == len(PARTITIONS) // 2
        assert dead._connection is not None
        dead._connection.terminate()  # as by kill -9
        async with asyncio.timeout(5):
            while len(heir.held) < len(PARTITIONS):
                await heir.refresh()
                await asyncio.sleep(0.02)


async def test_who_stands_still_loses_its_partitions_and_can_move_nothing(
    database: Database,
) -> None:
    at = (TOPIC, 0)
    async with worker(database) as sleeper:
        assert set(sleeper.held) == set(PARTITIONS)
        await expire(database)
        async with worker(database) as heir:
            assert set(heir.held) == set(PARTITIONS)
            async with database.transaction() as tx:
                await heir.fence({at: 7}).move(tx)
            heir.applied({at: 7})

            with pytest.raises(LeaseLost) as refused:
                async with database.transaction() as tx:
                    await sleeper.fence({at: 9}).move(tx)

            assert is_transient(refused.value)
            assert await position(database, at) == 7
            await sleeper.refresh()
            assert sleeper.still_ours([record(0, 7)]) == []


async def test_a_transaction_under_way_keeps_its_partitions(database: Database) -> None:
    at = (TOPIC, 3)
    async with worker(database) as slow:
        async with database.transaction() as tx:
            await slow.fence({at: 5}).move(tx)
            await tx.execute("SELECT 1")
            async with database.pool.acquire() as other:
                await other.execute(
                    "UPDATE consumer_positions SET leased_until = now() - interval '1 second'"
                    " WHERE partition <> 3"
                )
                await other.execute(
                    "UPDATE consumer_workers SET seen_until = now() - interval '1 s'"
                )
            async with worker(database) as other_worker:
                assert at not in other_worker.held
                assert len(other_worker.held) == len(PARTITIONS) - 1
        assert await position(database, at) == 5


async def test_a_commit_whose_answer_was_lost_is_not_made_twice(database: Database) -> None:
    at = (TOPIC, 1)
    async with worker(database) as leases:
        async with database.transaction() as tx:
            await leases.fence({at: 4}).move(tx)

        with pytest.raises(LeaseLost):  # it does not know that it was committed
            async with database.transaction() as tx:
                await leases.fence({at: 4}).move(tx)
        await leases.refresh()

        assert leases.held[at] == 4
        assert leases.still_ours([record(1, 3), record(1, 4)]) == [record(1, 4)]


async def test_a_batch_of_several_partitions_moves_wholly_or_not_at_all(database: Database) -> None:
    async with worker(database) as leases:
        await database.pool.execute(
            "UPDATE consumer_positions SET worker_id = NULL WHERE partition = 2"
        )
        with pytest.raises(LeaseLost):
            async with database.transaction() as tx:
                await leases.fence({(TOPIC, 1): 4, (TOPIC, 2): 4}).move(tx)

        assert await position(database, (TOPIC, 1)) == 0


async def test_what_is_known_already_keeps_its_position(database: Database) -> None:
    async with worker(database) as leases:
        async with database.transaction() as tx:
            await leases.fence({(TOPIC, 0): 12}).move(tx)
        assert await leases.unknown([*PARTITIONS, (TOPIC, 8)]) == {(TOPIC, 8)}

        await leases.enter(PARTITIONS | {(TOPIC, 8): 3})

        assert leases.held[TOPIC, 0] == 12
        assert leases.held[TOPIC, 8] == 3
