"""The commands of the local runner: `python -m deploy.local --help`."""

import argparse
import sys
from pathlib import Path

from deploy.local.parts import run_parts
from deploy.local.ports import Ports
from deploy.local.processes import LocalRunnerError


def main() -> int:
    arguments = _parser().parse_args()
    ports = Ports.shifted(arguments.port_base) if arguments.port_base else Ports()
    try:
        run_parts(arguments.data, ports, nodes=arguments.nodes, fast=arguments.fast)
    except LocalRunnerError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.local")
    commands = parser.add_subparsers(dest="command", required=True)
    parts = commands.add_parser("parts", help="PostgreSQL and Kafka only, until Ctrl-C")
    parts.add_argument("--data", type=Path, default=Path(".data/parts"))
    parts.add_argument("--port-base", type=int)
    parts.add_argument("--nodes", type=int, choices=(1, 3), default=1)
    parts.add_argument("--fast", action="store_true", help="a power cut may destroy the data")
    return parser


if __name__ == "__main__":
    sys.exit(main())
