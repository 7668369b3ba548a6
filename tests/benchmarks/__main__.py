"""Baza beside its limits: `python -m tests.benchmarks [name ...]`, a line of JSON for each figure.

Absolute figures are this machine's; the ratios can be compared. Ends with 1 when a bar is missed
even by the best of a figure's rounds.
"""

import argparse
import asyncio
import sys
import time

from libs.shared import logging
from libs.shared.garbage import spare_the_collector
from tests.benchmarks import (
    assign,
    batches,
    claim_lateness,
    create_client,
    idle,
    latency,
    latency_during_rescoring,
    lateness,
    loop,
    pipeline,
    queue,
    relay,
    rescoring,
    routing_latency,
    timers,
)
from tests.benchmarks.servers import running

BENCHMARKS = {
    "create": create_client.measure,
    "import": batches.measure,
    "pipeline": pipeline.measure,
    "loop": loop.measure,
    "latency": latency.measure,
    "relay": relay.measure,
    "timers": timers.measure,
    "lateness": lateness.measure,
    "rescoring": rescoring.measure,  # and the preview
    "latency_during_rescoring": latency_during_rescoring.measure,
    "queue": queue.measure,
    "idle": idle.measure,
    "assign": assign.measure,
    "routing_latency": routing_latency.measure,
    "claim_lateness": claim_lateness.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    wanted = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(wanted) - BENCHMARKS.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    began = time.perf_counter()
    spare_the_collector()  # as every worker does
    logging.configure("bench", "CRITICAL")  # a topic a moment old is no news
    figures = []
    with running() as servers:
        for name in wanted:
            for figure in asyncio.run(BENCHMARKS[name](servers)):
                figures.append(figure)
                sys.stdout.write(figure.line())
                sys.stdout.flush()
    for figure in figures:
        sys.stderr.write(figure.verdict() or "")
    sys.stderr.write(f"{time.perf_counter() - began:.0f} s\n")
    if any(figure.fails() for figure in figures):
        sys.exit(1)


if __name__ == "__main__":
    main()
