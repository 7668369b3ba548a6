"""Proof by breaking: `python -m tests.reliability` (`make chaos`, `make chaos-long`).

Writers and managers work through the services' doors while a seeded nemesis kills, stops, cuts
off, repeats, disorders and poisons. Then an oracle compares what the callers were answered with
what was said in the topics and what stands in the databases. At the end the same checks are run
against eight deliberately wrong variants of Baza: they must fail on each.
"""

import argparse
import asyncio
import compileall
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deploy.local.launch import ROOT
from libs.shared.background import beside
from libs.shared.failpoints import POINTS
from tests.reliability import controls, oracle, report, stalls, stored
from tests.reliability.aftermath import claim_all, decide_again, rescore, settle_poison, travel
from tests.reliability.arming import Arming
from tests.reliability.drain import until_drained
from tests.reliability.field import Field
from tests.reliability.nemesis import LEDGERS, WORKERS, Nemesis
from tests.reliability.outages import Watch
from tests.reliability.said import until_said
from tests.reliability.time_passing import time_passing
from tests.reliability.witness import Witness

DATA = Path(".data/chaos")


@dataclass(frozen=True, slots=True)
class Size:
    """How big a run is.

    Attributes:
        seconds: Of writing under faults.
        decks: How often the deck of faults is dealt out in that time.
        more: How many of a kind are in each deck beyond those of `DECK`.
        arm_pause: Seconds between a crash at a failpoint and the next one.
        crashes: At each failpoint, at most.
        armed: Failpoints armed at the same time.
        away_seconds: How long there is no broker at all, once a deck.
        long_away_seconds: The same, once in the run.
        clients: Of each writer.
        pause: Seconds between two commands of a writer.
        deals: In a batch, at most.
        enough_deals: Of each writer; its batches are small from then on.
        page: Leads that the managers look at together.
        leads: That come at the same moment, at most.
        routing_workers: How many of them share the leads.
        claimed: The managers' share in what they look at, each 0.4 s.
        travel_pause: Seconds for every six hours of the twelve days afterwards.
        events: At least so many must have been said.
        controls_in_place: The wrong variants stand in the same suite afterwards, two at a time, in
            different services. After an hour there is too much to read again for each: then one
            at a time in a suite of their own.
    """

    seconds: float
    decks: int
    arm_pause: float
    crashes: int
    away_seconds: float
    long_away_seconds: float
    pause: float
    deals: int
    clients: int
    leads: int
    routing_workers: int
    page: int
    claimed: float
    travel_pause: float
    events: int
    faults: int
    armed: int = 1
    controls_in_place: bool = False
    enough_deals: int | None = None
    more: dict[str, int] = field(default_factory=dict)


SIZES = {
    "short": Size(
        seconds=45,
        decks=1,
        arm_pause=0.4,
        crashes=2,
        away_seconds=8,
        long_away_seconds=8,
        pause=0.05,
        deals=2_000,
        enough_deals=15_000,
        clients=150,
        leads=6,
        routing_workers=2,
        page=100,
        claimed=0.15,
        travel_pause=0.1,
        events=30_000,
        faults=40,
        armed=2,
        controls_in_place=True,
    ),
    "long": Size(
        seconds=2_700,
        decks=8,
        arm_pause=8.0,
        crashes=5,
        away_seconds=6,
        long_away_seconds=120,
        pause=1.0,
        deals=400,
        clients=40_000,
        leads=20,
        routing_workers=2,
        page=150,
        claimed=0.3,
        travel_pause=2.5,
        events=1_000_000,
        faults=1_000,
        # Writers rest, so that most points are reached seldom: of the hour's armings by one hand,
        # 15 s apart, two thirds ended in vain, and each point crashed twice.
        armed=2,
        # A start costs 2 s of CPU or more, a broker's 8, and PostgreSQL replays for up to 15 s.
        # With 24 whole decks, 12 crashes at each failpoint and writers that never rest, two cores
        # did little else: scoring heard half of the deals, and 545,000 were left at the end.
        more={
            "backends terminated": 40,
            "duplicates": 18,
            "disorder": 18,
            "poison": 2,
            "leaders moved": 3,
        },
    ),
}
# Reminders go out, and dead letters are replayed, after the writing only.
AT_TIMES = ("sending.taken", "sending.sent", "timer.due", "timer.fired", "claim_timeout.lapsed")
AT_TIMES_PAUSE = 2.0  # seconds at most: that part of the run is short
AT_REPLAY = ("dead_letter.replayed",)
AT_WORK = tuple(p for p in POINTS if not p.startswith("sending.") and p not in AT_REPLAY)


async def run(name: str, size: Size, seed: int, *, with_controls: bool) -> dict[str, Any]:
    """One run, from an empty suite to the report."""
    say = _Narrator()
    _compile()
    in_pairs = size.controls_in_place
    async with Field.open((DATA / "journals").absolute(), seed) as field:
        told = await _break_and_judge(name, size, field, say)
        if with_controls and size.controls_in_place:
            await _leave_one_of_each(field, size)
            told["controls"] = await controls.run_all(field, say, in_pairs=in_pairs)
    if with_controls and not size.controls_in_place:
        told["controls"] = await _judge_the_wrong(seed, say, in_pairs=in_pairs)
    return {**told, "seconds": round(time.monotonic() - say.began)}


async def _judge_the_wrong(seed: int, say: "_Narrator", *, in_pairs: bool) -> dict[str, str]:
    """The controls on a suite of their own."""
    async with Field.open((DATA / "controls").absolute(), seed, nodes=1) as field:
        return await controls.run_all(field, say, in_pairs=in_pairs)


async def _leave_one_of_each(field: Field, size: Size) -> None:
    """End the other workers of routing: a wrong one would have company that is right."""
    for n in range(2, size.routing_workers + 1):
        await asyncio.to_thread(field.end, f"routing-worker-{n}")


def _compile() -> None:
    """Compile what a hundred processes import, where the environment forbids them to do it."""
    for folder in ("deploy", "libs", "services", "tests/reliability"):
        compileall.compile_dir(ROOT / folder, quiet=1)


async def _break_and_judge(name: str, size: Size, field: Field, say: "_Narrator") -> dict[str, Any]:
    """The run but for the controls."""
    say(f"the suite runs: {len(field.processes)} processes, three brokers, PostgreSQL")
    for number in ("0", "1"):
        process = field.writer_process(
            number,
            pause=size.pause,
            deals=size.deals,
            enough_deals=size.enough_deals,
            clients=size.clients,
            leads=size.leads,
        )
        field.start(f"writer-{number}", process)
    for n in range(2, size.routing_workers + 1):
        field.start(f"routing-worker-{n}", field.another_worker("routing", n))
    field.start("claimant", field.claimant_process(page=size.page, claimed=size.claimed))
    clients = await _first_clients(field)
    nemesis = Nemesis(
        field,
        field.seed,
        away_seconds=size.away_seconds,
        long_away_seconds=size.long_away_seconds,
        clients=clients,
    )
    arming = Arming(field.folder, field.seed)
    watch = Watch()
    async with (
        beside(time_passing(field), name="time"),
        beside(watch.run(field, (*WORKERS, *LEDGERS)), name="watch"),
    ):
        at_work = arming.in_turn(
            size.crashes, points=AT_WORK, pause=size.arm_pause, at_once=size.armed
        )
        async with beside(at_work, name="failpoints"):
            say(f"{size.seconds:.0f} s of writing under faults")
            await nemesis.run(size.seconds, decks=size.decks, more=size.more)
            say("all faults are over; until each failpoint has crashed")
            now_or_never = [point for point in AT_WORK if point not in AT_TIMES]
            await arming.until_crashed(now_or_never, limit=60)
        arming.disarm()  # crashes would only keep the writers from what is left to say
        say(f"until {size.events:,} events are said")
        await until_said(field.suite.kafka, size.events, limit=60)
        for writer in ("writer-0", "writer-1"):
            await asyncio.to_thread(field.end, writer)
        say("twelve days pass under faults: offers lapse, reminders go out, clients age")
        pause = min(size.arm_pause, AT_TIMES_PAUSE)
        at_times = arming.in_turn(size.crashes, points=AT_TIMES, pause=pause, at_once=size.armed)
        async with beside(at_times, name="failpoints"):
            after_step = arming.until_mail_goes_on
            await travel(field, pause=size.travel_pause, after_step=after_step)
            await arming.until_crashed(AT_TIMES, limit=30)
        arming.disarm()
        last_fault = time.time()
        await asyncio.to_thread(field.end, "claimant")
        drain_seconds = await until_drained(field) - last_fault
        say(f"drained {drain_seconds:.1f} s after the last fault")
        found = await _letters_before_replay(field)
        at_replay = arming.in_turn(size.crashes, points=AT_REPLAY, pause=0.2)
        async with beside(at_replay, name="failpoints"):
            await settle_poison(field)
        arming.disarm()
        await claim_all(field)
        await until_drained(field)
    say("the oracle reads the topics and the databases")
    mismatches = await rescore(field)
    witness = await Witness.of(field.suite.kafka)
    await until_drained(field)  # timers go on: what was said and heard by now is applied soon
    rows = await stored.Stored.of(field.database_urls())
    replayed = await decide_again(field)
    findings = oracle.compare(oracle.Truth.of(field.folder), witness, rows)
    findings.counts["dead_letters_unexpected"] += len(found - witness.poison)
    crashes = arming.crashes()
    latency, stall, whose = stalls.longest(rows, nemesis.outages, watch.away)
    return {
        "size": name,
        "seed": field.seed,
        "seconds": 0,  # is known at the end
        "events": witness.events,
        "repeats": witness.repeats,
        "leads": len(rows.routed),
        "decisions_replayed": replayed.checked,
        "decisions_differing": len(replayed.differing) + replayed.skipped,
        "faults": dict(sorted(nemesis.faults.items())),
        "faults_without_effect": dict(sorted(nemesis.failed.items())),
        "failpoints": {point: crashes[point] for point in sorted(POINTS)},
        **{kind: findings.counts[kind] for kind in oracle.KINDS},
        "rescoring_mismatches": mismatches,
        "deadlocks": field.deadlocks(),
        "drain_seconds": round(drain_seconds, 1),
        "longest_latency_seconds": round(latency, 1),
        "longest_stall_seconds": round(stall, 1),
        "longest_stall": whose,
        "accepted_without_kafka": nemesis.accepted_without_kafka,
        "poison": len(witness.poison),
        "dead_letters_unexpected": findings.counts["dead_letters_unexpected"],
        "dead_letters_missing": findings.counts["dead_letters_missing"],
        "dead_letters_left": rows.open_letters,
        "findings": findings.shown(),
    }


async def _first_clients(field: Field) -> list[str]:
    async with asyncio.timeout(60):
        while True:
            truth = oracle.Truth.of(field.folder)
            if truth.clients:
                return sorted(truth.clients)
            await asyncio.sleep(0.2)


async def _letters_before_replay(field: Field) -> set[tuple[str, str, int, int]]:
    return (await stored.Stored.of(field.database_urls())).dead


class _Narrator:
    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:7.1f} s  {what}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability")
    parser.add_argument("--size", choices=SIZES, default="short")
    parser.add_argument("--seconds", type=float, help="of writing, with its share of the faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-controls", action="store_true")
    parser.add_argument("--only-controls", action="store_true", help="the wrong variants alone")
    arguments = parser.parse_args()
    if arguments.only_controls:
        in_pairs = SIZES[arguments.size].controls_in_place
        verdicts = asyncio.run(_judge_the_wrong(arguments.seed, _Narrator(), in_pairs=in_pairs))
        return int(any(verdict not in report.GOOD_VERDICTS for verdict in verdicts.values()))
    size = SIZES[arguments.size]
    if arguments.seconds:
        decks = max(1, round(size.decks * arguments.seconds / size.seconds))
        size = replace(size, seconds=arguments.seconds, decks=decks)
    with suppress(KeyboardInterrupt):
        with_controls = not arguments.without_controls
        told = asyncio.run(run(arguments.size, size, arguments.seed, with_controls=with_controls))
        report.write(DATA / "report.json", told)
        print(report.table(told))
        wrong = report.failures(told, events=size.events, faults=size.faults)
        for line in wrong:
            print(f"FAILED: {line}", file=sys.stderr)
        return 1 if wrong else 0
    return 130


if __name__ == "__main__":
    sys.exit(main())
