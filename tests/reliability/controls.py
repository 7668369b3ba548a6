"""Negative controls: the same work, the same oracle, one part of Baza wrong. It must be found.

A check that cannot fail proves nothing. Each control replaces a process by a wrong variant, lets
writers and managers work, provokes what the mistake is about, puts the right process back and asks
the oracle what is new. The first control changes nothing, and nothing may be found. Where there is
little time, two variants stand at once, in different services, and what each leads to is told
apart by what is found.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import httpx

from deploy.local.doors import answers
from libs.shared.background import beside
from tests.reliability import injected, ledger, oracle
from tests.reliability.aftermath import settle_poison
from tests.reliability.claimant import Claimant
from tests.reliability.claimant import Task as ClaimantTask
from tests.reliability.drain import until_drained
from tests.reliability.field import Field
from tests.reliability.mutant import VARIANTS
from tests.reliability.nemesis import LEDGERS
from tests.reliability.stored import Stored
from tests.reliability.time_passing import time_passing
from tests.reliability.witness import Witness
from tests.reliability.writer import START, Writer
from tests.reliability.writer import Task as WriterTask

HEALTHY = "healthy"
WORK_SECONDS = 4.0
TRIES = 2  # whether a mistake shows in four seconds is a matter of luck, too
DRAIN_SECONDS = 15.0
READY_SECONDS = 30.0
MEETINGS_FROM = START + timedelta(days=60)  # behind the days that a run lets pass
ROUNDS = 2  # in which ledgers come back from the dead
MOST_ROUNDS = 6  # of wrong ones: whether both have the same batch at the same time is chance
STEP_SECONDS = 60  # of the suite's clock, each second: a claim window is over in two
_SLOW_COMMITS = """
CREATE FUNCTION commit_slowly() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < 0.03 THEN PERFORM pg_sleep(0.1); END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER commit_slowly AFTER INSERT ON outbox
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION commit_slowly();
"""
# The twin begins where the ledger is; and remembering takes a millisecond an event, so that both
# are at it at the same time.
_TWIN = """
INSERT INTO consumer_positions (group_name, topic, partition, next_offset)
SELECT 'ledger-twin', topic, partition, next_offset FROM consumer_positions
WHERE group_name = 'ledger'
ON CONFLICT (group_name, topic, partition) DO UPDATE SET next_offset = excluded.next_offset;
CREATE FUNCTION remember_slowly() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0.001);
    RETURN NEW;
END $$;
CREATE TRIGGER remember_slowly BEFORE INSERT ON inbox
    FOR EACH ROW EXECUTE FUNCTION remember_slowly();
"""
CAUGHT, MISSED, CLEAN = "caught", "missed", "clean"


@dataclass(frozen=True, slots=True)
class Control:
    """A wrong variant: where it stands, what it leads to, and what brings that to light.

    Attributes:
        leads_to: How a finding begins that only this mistake leads to.
    """

    processes: tuple[str, ...]
    leads_to: tuple[str, ...]
    provoke: Callable[[Field], Coroutine[Any, Any, None]]


async def run_all(field: Field, say: Callable[[str], None], *, in_pairs: bool) -> dict[str, str]:
    """Every control in turn; what became of each.

    Args:
        field: All at rest, where the first days of meetings may have passed.
        in_pairs: Two at once, as `PAIRS` has them; what is missed so is tried again alone.
    """
    verdicts: dict[str, str] = {}
    await _change_ledger(field, ledger.refusing(0.2))
    say("eight wrong variants")
    async with Witness.open(field.suite.kafka) as witness:
        known = await _findings(field, witness)
        todo = [(HEALTHY,), *(PAIRS if in_pairs else [(name,) for name in VARIANTS])]
        tries: Counter[str] = Counter()
        while todo:
            names = todo.pop(0)
            found = await _inspect(field, witness, names) - known
            known |= found
            for name in names:
                tries[name] += 1
                verdicts[name] = _verdict(name, found)
                say(f"  {name}: {verdicts[name]} ({', '.join(_kinds(found)) or 'nothing found'})")
                if verdicts[name] == MISSED and tries[name] < TRIES:
                    todo.append((name,))
    return {name: verdicts[name] for name in CONTROLS}


def _verdict(name: str, found: set[str]) -> str:
    if name == HEALTHY:
        return f"wrongly found: {sorted(found)[:5]}" if found else CLEAN
    return CAUGHT if any(told.startswith(CONTROLS[name].leads_to) for told in found) else MISSED


def _kinds(found: set[str]) -> list[str]:
    return sorted({text.split("/")[0] for text in found})


async def _inspect(field: Field, witness: Witness, names: Sequence[str]) -> set[str]:
    """Findings after some work with these variants; those from before included."""
    controls = {name: CONTROLS[name] for name in names}
    await asyncio.gather(*(_replace(field, c.processes, name) for name, c in controls.items()))
    stop = asyncio.Event()
    async with (
        beside(time_passing(field, step=STEP_SECONDS), name="time"),
        asyncio.TaskGroup() as workers,
    ):
        for number in ("2", "3", "4"):
            workers.create_task(_write(field, number, stop))
        workers.create_task(_claim(field, stop))
        async with asyncio.TaskGroup() as provoking:
            provoking.create_task(asyncio.sleep(WORK_SECONDS))
            for control in controls.values():
                provoking.create_task(control.provoke(field))
        stop.set()
    await asyncio.sleep(0.5)
    await asyncio.gather(*(_replace(field, c.processes, HEALTHY) for c in controls.values()))
    for path in (field.folder / "armed").iterdir():
        path.unlink(missing_ok=True)
    async with beside(time_passing(field), name="time"):
        await _until_drained(field)
    found = await _findings(field, witness)
    await settle_poison(field)  # what waits behind a letter would be lost to the next control
    return found


async def _findings(field: Field, witness: Witness) -> set[str]:
    truth = oracle.Truth.of(field.folder)
    await witness.read_on()
    await _until_drained(field)  # timers go on: what was said and heard by now is applied soon
    found = oracle.compare(truth, witness, await Stored.of(field.database_urls()))
    told = {f"{kind}/{text}" for kind, texts in found.every.items() for text in texts}
    # Leads are claimed, and reminders sent, at the end of a run only.
    told = {text for text in told if not text.startswith("no_owner") and "reminder" not in text}
    told = {text for text in told if not text.endswith("nobody has it at the end")}
    return told | {f"deadlocks/{number}" for number in range(field.deadlocks())}


async def _until_drained(field: Field) -> None:
    with suppress(TimeoutError):  # what never comes is for the oracle to find
        await until_drained(field, limit=DRAIN_SECONDS)


async def _write(field: Field, name: str, stop: asyncio.Event) -> None:
    task = WriterTask(
        name,
        field.seed,
        str(field.folder),
        field.place,
        pause=0.01,
        deals=120,
        meetings_from=MEETINGS_FROM,
    )
    async with field.client("integration") as client:
        await Writer(task, client).run(stop)


async def _claim(field: Field, stop: asyncio.Event) -> None:
    task = ClaimantTask(field.seed, str(field.folder), field.place, field.managers, 8, 0.1)
    async with field.client("supervisor") as client:
        await Claimant(task, client).run(stop)


async def _replace(field: Field, names: tuple[str, ...], variant: str) -> None:
    """Start processes anew as a variant, or as they should be."""
    for name in names:
        process = field.processes[name]
        arguments = process.arguments
        if arguments[2] == "tests.reliability.mutant":
            arguments = [*arguments[:2], *arguments[4:]]
        if variant != HEALTHY:
            arguments = [*arguments[:2], "tests.reliability.mutant", variant, *arguments[2:]]
        process.arguments = arguments
        if process.is_running():
            process.kill()
    async with httpx.AsyncClient() as http, asyncio.timeout(READY_SECONDS):
        for name in names:
            while not await answers(http, field.door(name)):
                await asyncio.sleep(0.1)


async def _nothing(field: Field) -> None:
    """The work itself brings it to light."""


async def _crash_between_position_and_effects(field: Field) -> None:
    await _crash_at(field, "inbox.remembered", times=4)


async def _crash_between_sending_and_deleting(field: Field) -> None:
    await _crash_at(field, "relay.acknowledged", times=2)
    await injected.send_again(field.suite.kafka, random.Random(field.seed), shuffled=False)


async def _crash_at(field: Field, point: str, *, times: int) -> None:
    for _ in range(times):
        (field.folder / "armed" / point).touch()
        await asyncio.sleep(WORK_SECONDS / times)


async def _commit_slowly(field: Field) -> None:
    """Some commits take a tenth of a second, as on a busy disk: rows appear out of their order."""
    connection = await asyncpg.connect(field.database_urls()["contacts"])
    try:
        await connection.execute(_SLOW_COMMITS)
        await asyncio.sleep(WORK_SECONDS)
        await connection.execute("DROP FUNCTION commit_slowly CASCADE")
    finally:
        await connection.close()


async def _come_back_from_the_dead(field: Field) -> None:
    """Two groups with one inbox stand still, and go on with the same events at the same moment."""
    twin = field.ledger_process("ledger-twin", group="ledger-twin")
    rounds = ROUNDS
    if "tests.reliability.mutant" in field.processes[LEDGERS[0]].arguments:
        twin.arguments[2:2] = ["tests.reliability.mutant", "unsorted inbox"]
        rounds = MOST_ROUNDS
    await _change_ledger(field, _TWIN)
    twin.start()
    try:
        async with httpx.AsyncClient() as http, asyncio.timeout(READY_SECONDS):
            while not await answers(http, field.door("ledger-twin")):
                await asyncio.sleep(0.1)
        pids = [twin.pid, *(field.processes[name].pid for name in LEDGERS)]
        deadlocks = field.deadlocks()
        while rounds and field.deadlocks() == deadlocks:  # or it has come to light
            rounds -= 1
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(1.5)  # the backlog makes the batches big
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(2.0)
    finally:
        twin.kill()
        await _change_ledger(field, "DROP FUNCTION remember_slowly CASCADE")


async def _change_ledger(field: Field, sql: str) -> None:
    connection = await asyncpg.connect(field.ledger_url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


_NOT_APPLIED = ("lost/event said, not applied",)
_SAID_WRONGLY = (
    "order_violations/deals said in another order",
    "lost/deal not said",
    "lost/not sent",
)
CONTROLS: dict[str, Control] = {
    HEALTHY: Control((), (), _come_back_from_the_dead),
    "offsets first": Control(LEDGERS, _NOT_APPLIED, _crash_between_position_and_effects),
    "no inbox": Control(
        LEDGERS, ("doubled/event applied twice",), _crash_between_sending_and_deleting
    ),
    "cursor relay": Control(("contacts-worker",), _SAID_WRONGLY, _commit_slowly),
    "unsharded relays": Control(("contacts-worker",), _SAID_WRONGLY[:1], _nothing),
    "no epoch": Control(("routing",), ("two_owners",), _nothing),
    "volatile clock": Control(("routing-worker",), ("timers_early",), _nothing),
    "unsorted inbox": Control(LEDGERS, ("deadlocks",), _come_back_from_the_dead),
    "swallowed commit failure": Control(LEDGERS, _NOT_APPLIED, _nothing),
}
PAIRS = (
    ("offsets first", "unsharded relays"),
    ("no inbox", "no epoch"),
    ("unsorted inbox", "volatile clock"),
    ("swallowed commit failure", "cursor relay"),
)
assert set(CONTROLS) == {HEALTHY, *VARIANTS}
assert sorted(name for pair in PAIRS for name in pair) == sorted(VARIANTS)
