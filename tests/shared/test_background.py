"""A loop beside a block: none may die without the block being told."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from libs.shared.background import beside, to_its_end

PATIENCE = 4.0


class Broken(Exception):
    """What a loop dies of."""


async def _dies(after: float = 0.0) -> None:
    await asyncio.sleep(after)
    raise Broken


async def _for_ever() -> None:
    await asyncio.Event().wait()


@pytest.fixture
def at_once() -> Iterator[None]:
    """A block that nobody ends comes to its timeout, and then raises the failure all the same."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < PATIENCE


@pytest.mark.usefixtures("at_once")
async def test_a_loop_that_fails_ends_the_block_with_its_failure() -> None:
    was_cleaned_up = False
    with pytest.raises(Broken):
        async with asyncio.timeout(PATIENCE), beside(_dies(), name="loop"):
            try:
                await _for_ever()
            finally:
                was_cleaned_up = True
    assert was_cleaned_up
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0  # what comes afterwards is not cancelled


@pytest.mark.usefixtures("at_once")
async def test_an_inner_block_lets_the_failure_of_an_outer_loop_through() -> None:
    with pytest.raises(Broken):
        async with (
            asyncio.timeout(PATIENCE),
            beside(_dies(), name="outer"),
            beside(_for_ever(), name="inner"),
        ):
            await _for_ever()


@pytest.mark.usefixtures("at_once")
async def test_tasks_of_a_group_end_when_a_loop_beside_it_fails() -> None:
    with pytest.raises(Broken):
        async with (
            asyncio.timeout(PATIENCE),
            beside(_dies(), name="loop"),
            asyncio.TaskGroup() as group,
        ):
            tasks = [group.create_task(_for_ever()) for _ in range(3)]
    assert all(task.cancelled() for task in tasks)


async def test_who_is_cancelled_while_the_loop_cleans_up_is_cancelled_when_it_has() -> None:
    steps: list[str] = []
    cleaning_up = asyncio.Event()

    async def loop() -> None:
        try:
            await _for_ever()
        finally:
            cleaning_up.set()
            await asyncio.sleep(0.1)
            steps.append("cleaned up")

    async def host() -> None:
        async with beside(loop(), name="loop"):
            await asyncio.sleep(0)  # it has begun
        steps.append("went on")

    task = asyncio.create_task(host())
    await cleaning_up.wait()
    task.cancel()
    await asyncio.wait([task], timeout=PATIENCE)
    assert task.cancelled()
    assert steps == ["cleaned up"]


async def test_a_loop_ends_with_the_block() -> None:
    ended = asyncio.Event()

    async def loop() -> None:
        try:
            await _for_ever()
        finally:
            ended.set()

    async with beside(loop(), name="loop"):
        await asyncio.sleep(0)
    assert ended.is_set()


async def test_the_blocks_own_failure_and_a_stop_stay_what_they_are() -> None:
    with pytest.raises(ZeroDivisionError):
        async with beside(_for_ever(), name="loop"):
            raise ZeroDivisionError

    async def block() -> None:
        async with beside(_for_ever(), name="loop"):
            await _for_ever()

    task = asyncio.create_task(block())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_loop_that_ends_by_itself_leaves_the_block_alone() -> None:
    async def loop() -> None:
        """Has nothing to do."""

    async with beside(loop(), name="loop"):
        await asyncio.sleep(0.01)


async def test_a_stop_waits_for_a_piece_of_work_only_so_long() -> None:
    ended: list[str] = []

    async def piece(seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
            ended.append("done")
        finally:
            ended.append("over")

    async def stopped(seconds: float, *, times: int = 1) -> list[str]:
        ended.clear()
        task = asyncio.create_task(to_its_end(piece(seconds), seconds=0.3))
        for _ in range(times):
            await asyncio.sleep(0.05)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return ended

    assert await stopped(0.15) == ["done", "over"]
    assert await stopped(PATIENCE) == ["over"]
    assert await stopped(PATIENCE, times=2) == ["over"]  # nothing goes on without anybody waiting
