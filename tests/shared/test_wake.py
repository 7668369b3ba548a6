"""Bells ring for what was committed, in every process, and for nothing else."""

import pytest

from libs.shared.database import Database

QUIET = 0.3
SOON = 5.0


async def test_a_commit_rings_here_and_in_the_other_processes(plumbing: Database) -> None:
    async with Database.open(plumbing.dsn, name="other", pool_size=1) as other:
        here, there = plumbing.wake.bell(), other.wake.bell()
        while await there.wait(QUIET):  # the ring of having connected
            pass

        async with plumbing.transaction() as tx:
            await tx.execute("INSERT INTO inbox (event_id) VALUES (gen_random_uuid())")

        assert await here.wait(SOON)
        assert here.was_near
        assert await there.wait(SOON)
        assert not there.was_near
        there.ring(near=False)
        assert not await there.wait(QUIET, near=True)
        there.ring()
        assert await there.wait(QUIET, near=True)
        assert there.was_near


async def test_looking_and_failing_ring_nobody(plumbing: Database) -> None:
    bell = plumbing.wake.bell()
    while await bell.wait(QUIET):
        pass

    async with plumbing.transaction() as tx:
        await tx.fetch("SELECT * FROM inbox")
    with pytest.raises(ZeroDivisionError):
        async with plumbing.transaction() as tx:
            await tx.execute("INSERT INTO inbox (event_id) VALUES (gen_random_uuid())")
            raise ZeroDivisionError

    assert not await bell.wait(QUIET)
