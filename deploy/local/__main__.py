"""The commands of the local runner: `python -m deploy.local --help`."""

import argparse
import asyncio
import importlib
import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
from rich.console import Console
from rich.table import Table

from deploy.local import kafka_classes, kafka_jars
from deploy.local.data_folder import stop_suite
from deploy.local.doors import advance_clocks, issue_token
from deploy.local.parts import run_parts
from deploy.local.plan import HOST
from deploy.local.ports import SERVICES, Ports
from deploy.local.processes import LocalRunnerError
from deploy.local.suite import Suite, say_on_stderr
from libs.shared.auth import Role

DATA = Path(".data")
RUN = DATA / "run"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def main() -> int:
    arguments = _parser().parse_args()
    try:
        return int(arguments.command(arguments) or 0)
    except LocalRunnerError as problem:
        say_on_stderr(str(problem))
    except httpx.TransportError as problem:
        say_on_stderr(f"The suite does not answer ({problem}): is it running?")
    except (FileExistsError, NotADirectoryError, PermissionError) as problem:
        say_on_stderr(f"The data folder cannot be used: {problem}")
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 130
    return 1


def _run(arguments: argparse.Namespace) -> int:
    try:
        asyncio.run(_keep_running(arguments))
    except asyncio.CancelledError:
        say_on_stderr("Stopped. The data stay for the next `make run`.")
    return 0


async def _keep_running(arguments: argparse.Namespace) -> None:
    say_on_stderr("Starting the suite ...")
    async with Suite.open(
        data=arguments.data,
        ports=_ports(arguments),
        services=arguments.only or SERVICES,
        sandbox=arguments.sandbox,
        clock_start=arguments.clock_start,
        nodes=arguments.nodes,
    ) as suite:
        Console().print(_what_listens_where(suite))
        print(f"Logs: {_shown(suite.data / 'logs')}. Ctrl-C or `make stop` ends it.", flush=True)
        await asyncio.Event().wait()


def _what_listens_where(suite: Suite) -> Table:
    table = Table(title=f"Ready in {suite.seconds['all']:.1f} s")
    for column in ("what", "where", "log"):
        table.add_column(column, no_wrap=True)
    for service in suite.urls:
        table.add_row(f"{service} API", f"{suite.urls[service]}/docs", f"{service}.log")
        table.add_row(f"{service} worker", suite.worker_urls[service], f"{service}-worker.log")
    table.add_row("tokens, mail, links", suite.outside_url, "outside.log")
    table.add_row("SMTP", f"{HOST}:{suite.ports.smtp}", "outside.log")
    logs = (
        ", ".join(node.log.name for node in suite.launch.kafka.nodes) if suite.launch.kafka else ""
    )
    table.add_row("Kafka", suite.kafka, logs)
    if suite.launch.postgres is not None:
        table.add_row("PostgreSQL", f"{HOST}:{suite.ports.postgres}", "postgres.log")
    return table


def _stop(arguments: argparse.Namespace) -> None:
    folders = [arguments.data] if arguments.data else sorted(DATA.glob("*/"))
    if not any([stop_suite(folder, say_on_stderr) for folder in folders]):
        say_on_stderr("No suite runs here.")


def _demo(_arguments: argparse.Namespace) -> int:
    # Imported here: the demo's own imports would slow down every other command.
    return int(importlib.import_module("deploy.local.demo").main() or 0)


def _fetch(_arguments: argparse.Namespace) -> None:
    kafka_jars.fetch()
    try:
        kafka_classes.keep()
    except LocalRunnerError as problem:  # it only starts slower
        say_on_stderr(f"Kafka's classes are not kept, each start loads them anew: {problem}")


def _parts(arguments: argparse.Namespace) -> None:
    run_parts(arguments.data, _ports(arguments), nodes=arguments.nodes, fast=arguments.fast)


def _token(arguments: argparse.Namespace) -> None:
    async def issue() -> str:
        async with httpx.AsyncClient() as http:
            return await issue_token(
                http,
                f"http://{HOST}:{_running_ports(arguments).outside}",
                arguments.subject,
                arguments.roles,
                manager_id=arguments.manager_id,
                seconds=arguments.seconds,
            )

    print(asyncio.run(issue()))


def _advance(arguments: argparse.Namespace) -> None:
    ports = _running_ports(arguments)
    urls = {
        service: f"http://{HOST}:{ports.api(service)}" for service in arguments.only or SERVICES
    }

    async def advance() -> None:
        async with httpx.AsyncClient() as http:
            await advance_clocks(http, f"http://{HOST}:{ports.outside}", urls, arguments.by)

    asyncio.run(advance())
    say_on_stderr(f"The suite's clock is {arguments.by} further.")


def _ports(arguments: argparse.Namespace) -> Ports:
    return Ports.shifted(arguments.port_base) if arguments.port_base else Ports()


def _running_ports(arguments: argparse.Namespace) -> Ports:
    """The ports the suite in the data folder was started with."""
    try:
        return Ports(**json.loads((arguments.data / "ports.json").read_text()))
    except FileNotFoundError:
        raise LocalRunnerError(f"No suite was ever started in {arguments.data}") from None


def _shown(path: Path) -> str:
    return os.path.relpath(path)


def _duration(text: str) -> timedelta:
    matched = re.fullmatch(r"(\d+)([smhd])", text)
    if matched is None:
        raise argparse.ArgumentTypeError("a number with s, m, h or d, such as 15m")
    return timedelta(seconds=int(matched[1]) * _SECONDS[matched[2]])


def _port(text: str) -> int:
    if not text.isdecimal() or not 1024 <= int(text) <= 65_000:  # the suite takes some above it
        raise argparse.ArgumentTypeError("a number from 1024 to 65000")
    return int(text)


def _instant(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("an instant such as 1998-07-01T09:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: object, help_text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help_text, description=help_text)
        added.set_defaults(command=command)
        return added

    def add_place(to: argparse.ArgumentParser, data: Path) -> None:
        to.add_argument("--data", type=Path, default=data, help=f"data folder ({data})")
        to.add_argument("--port-base", type=_port, help="other ports, from this one on")
        to.add_argument("--nodes", type=int, choices=(1, 3), default=1, help="Kafka nodes (1)")

    run = add("run", _run, "start the suite and keep it until Ctrl-C")
    add_place(run, RUN)
    run.add_argument("--only", nargs="+", choices=SERVICES, help="these services, not all four")
    run.add_argument("--sandbox", action="store_true", help="let the clock be advanced")
    run.add_argument("--clock-start", type=_instant, help="sandbox time at the very first start")
    stop = add("stop", _stop, "stop the suites of this checkout, and what killed ones left")
    stop.add_argument("--data", type=Path, help="only the suite of this data folder")
    add("demo", _demo, "start everything, run the main job on real data, show what came out")
    parts = add("parts", _parts, "PostgreSQL and Kafka only, until Ctrl-C")
    add_place(parts, DATA / "parts")
    parts.add_argument("--fast", action="store_true", help="a power cut may destroy the data")
    add("fetch", _fetch, "fetch Kafka's jars now")
    token = add("token", _token, "print a bearer token of the running suite")
    token.add_argument("subject")
    token.add_argument("roles", nargs="+", choices=[*Role], metavar="role", help=", ".join(Role))
    token.add_argument("--manager-id", type=lambda text: str(UUID(text)), help="a UUID")
    token.add_argument("--seconds", type=int, default=3600, help="how long it is valid (3600)")
    token.add_argument("--data", type=Path, default=RUN, help=f"data folder ({RUN})")
    advance = add("advance", _advance, "let time pass in a sandbox suite")
    advance.add_argument("by", type=_duration, help="such as 90s, 15m, 24h, 180d")
    advance.add_argument("--only", nargs="+", choices=SERVICES, help="if not all four run")
    advance.add_argument("--data", type=Path, default=RUN, help=f"data folder ({RUN})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
