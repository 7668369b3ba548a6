"""Plays the demo from beginning to end."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.local.demo import lead_story, meeting_story, purchases_story, rules_story
from deploy.local.demo.cdnow import ZONE, purchases
from deploy.local.demo.doors import Doors
from deploy.local.demo.observer import Observer
from deploy.local.demo.report import Report
from deploy.local.demo.show import show, verdict, where_to_look
from deploy.local.ports import Ports
from deploy.local.suite import Suite

DATA = Path(".data/demo")
CLOCK_START = datetime(1998, 7, 1, 9, tzinfo=ZONE)  # the morning after the last CDNOW purchase


class Stopwatch:
    """Seconds by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - began


def main(ports: Ports | None = None) -> int:
    """Play the demo; 0 if every fact held, 1 if not. On a terminal it stays until Ctrl-C."""
    # A file or a pipe has no width; tables need one.
    console = Console(width=None if sys.stdout.isatty() else 120)
    return asyncio.run(_demo(console, ports or Ports()))


async def _demo(console: Console, ports: Ports) -> int:
    watch = Stopwatch()
    console.print("Starting PostgreSQL, Apache Kafka and the four services ...")
    began = time.perf_counter()
    async with Suite.open(
        data=DATA, ports=ports, sandbox=True, clock_start=CLOCK_START, empty=True
    ) as suite:
        watch.seconds["start"] = time.perf_counter() - began
        console.print(f"Ready after {watch.seconds['start']:.1f} s.")
        report = await _play(console, suite, watch)
        report.write(DATA / "report.json")
        show(console, report)
        faults = list(report.faults())
        verdict(console, faults)
        console.print(f"report       {DATA}/report.json")
        if sys.stdout.isatty():
            where_to_look(console, suite)
            console.print("Ctrl-C stops everything.")
            with suppress(asyncio.CancelledError):  # Ctrl-C is how a person ends the demo
                await asyncio.Event().wait()
    return 1 if faults else 0


async def _play(console: Console, suite: Suite, watch: Stopwatch) -> Report:
    with watch.part("read the CDNOW file"):
        history = purchases()
    observer = Observer(suite.kafka, suite.topic_prefix)
    async with observer.watching(), Doors.open(suite) as doors:
        with watch.part("purchases to segments"), _progress(console) as progress:
            bar = progress.add_task("purchases", total=len(history))
            bought = await purchases_story.play(
                doors, observer, history, console.print, lambda n: progress.advance(bar, n)
            )
        with watch.part("rules changed"):
            rules = await rules_story.play(doors, console.print)
        with watch.part("leads to owners"):
            leads = await lead_story.play(doors, observer, console.print)
        with watch.part("meetings to reminders"):
            client_id = bought.queue[0]["client_id"]
            reminders = await meeting_story.play(doors, client_id, console.print)
        with watch.part("last check"):
            late = await _after_the_clock_moved(doors, observer)
    return Report(
        bought, rules, leads, reminders, dict(observer.topics), observer.gaps, late, watch.seconds
    )


async def _after_the_clock_moved(doors: Doors, observer: Observer) -> int:
    """Days have passed: clients have aged by due rows. Everything must still agree."""
    mismatches = await purchases_story.rescore(doors)
    scores = await doors.all_pages("scoring", "/v1/scores")
    await purchases_story.all_told(observer, scores)
    return mismatches + await purchases_story.compare_with_current(doors, scores)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
