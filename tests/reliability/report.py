"""The report of a chaos run: what the issue promises, as JSON, and as a table for the document."""

from pathlib import Path
from typing import Any

import orjson

from tests.reliability.oracle import KINDS

MUST_BE_ZERO = (*KINDS, "rescoring_mismatches", "deadlocks", "dead_letters_unexpected")
DRAIN_LIMIT_SECONDS = 60.0
STALL_LIMIT_SECONDS = 15.0
CONTROLS = 8
GOOD_VERDICTS = ("caught", "clean")
# Figures beside their limit: name, least, most; None is no limit.
LIMITS: dict[str, tuple[float | None, float | None]] = {
    **{name: (0, 0) for name in MUST_BE_ZERO},
    "decisions_differing": (0, 0),
    "dead_letters_missing": (0, 0),
    "dead_letters_left": (0, 0),
    "drain_seconds": (None, DRAIN_LIMIT_SECONDS),
    "longest_stall_seconds": (None, STALL_LIMIT_SECONDS),
    "accepted_without_kafka": (1, None),
}


def failures(report: dict[str, Any], *, events: int, faults: int) -> list[str]:
    """What the report does not keep; empty if it keeps everything."""
    limits = LIMITS | {"events": (events, None)}
    told = [
        f"{name} is {report[name]}, {_range(least, most)}"
        for name, (least, most) in limits.items()
        if (least is not None and report[name] < least)
        or (most is not None and report[name] > most)
    ]
    happened = sum(report["faults"].values())
    if happened < faults:
        told.append(f"{happened} faults, at least {faults} are wanted")
    told += [f"failpoint {name} never crashed" for name, n in report["failpoints"].items() if not n]
    controls = report.get("controls", {})
    told += [
        f"control {name}: {what}" for name, what in controls.items() if what not in GOOD_VERDICTS
    ]
    return told


def _range(least: float | None, most: float | None) -> str:
    if least == most:
        return f"must be {least:g}"
    return f"at least {least:g}" if most is None else f"at most {most:g}"


def write(path: Path, report: dict[str, Any]) -> None:
    """Write it, readable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")


def table(report: dict[str, Any]) -> str:
    """The figures beside their limits, in Markdown."""
    lines = ["| figure | value | must be |", "|---|---|---|"]
    lines.append(f"| events | {report['events']:,} | |")
    lines.append(f"| leads | {report['leads']:,} | |")
    lines.append(f"| faults | {sum(report['faults'].values()):,} | |")
    crashes = report["failpoints"].values()
    lines.append(f"| crashes at failpoints | {sum(crashes):,} | |")
    lines.append(f"| failpoints, the least crashed | {len(crashes)}, {min(crashes)} times | |")
    for name, (least, most) in LIMITS.items():
        lines.append(f"| {name.replace('_', ' ')} | {report[name]:,} | {_limit(least, most)} |")
    if controls := report.get("controls"):
        caught = sum(what == "caught" for what in controls.values())
        lines.append(f"| wrong variants caught | {caught} | {CONTROLS} |")
    return "\n".join(lines)


def faults_table(report: dict[str, Any]) -> str:
    """How often what happened, in Markdown."""
    kinds = report["faults"]
    kills = sum(number for kind, number in kinds.items() if kind.startswith("kill "))
    lines = ["| fault | times |", "|---|---|", f"| kill -9 of a process | {kills:,} |"]
    lines += [f"| {k} | {n:,} |" for k, n in kinds.items() if not k.startswith("kill ")]
    crashes = sorted(report["failpoints"].items())
    lines += ["", "| crash at | times |", "|---|---|", *(f"| `{p}` | {n:,} |" for p, n in crashes)]
    return "\n".join(lines)


def _limit(least: float | None, most: float | None) -> str:
    if least == most:
        return f"{least:g}"
    return f"≥ {least:g}" if most is None else f"≤ {most:g}"
