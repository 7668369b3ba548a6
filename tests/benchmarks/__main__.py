"""Baza beside its limits: `python -m tests.benchmarks [name ...]`, a line of JSON for each figure.

Absolute figures are this machine's; the ratios can be compared.
"""

import argparse
import asyncio
import sys
import time

from tests.benchmarks import batches, create_client, pipeline, relay
from tests.benchmarks.servers import durable_postgres

BENCHMARKS = {
    "create": create_client.measure,
    "import": batches.measure,
    "pipeline": pipeline.measure,
    "relay": relay.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    wanted = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(wanted) - BENCHMARKS.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    began = time.perf_counter()
    with durable_postgres() as postgres:
        for name in wanted:
            for figure in asyncio.run(BENCHMARKS[name](postgres)):
                sys.stdout.write(figure.line())
                sys.stdout.flush()
    sys.stderr.write(f"{time.perf_counter() - began:.0f} s\n")


if __name__ == "__main__":
    main()
