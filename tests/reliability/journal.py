"""What a process of the chaos run was answered: its share of the truth.

A line is one write, so a kill -9 leaves it whole or not at all. A command whose line is missing is
sent again after the restart, with the same key, and its answer is the first one's.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson


class Journal:
    """An append-only file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def add(self, entry: dict[str, Any]) -> None:
        """Append an entry."""
        os.write(self._file, orjson.dumps(entry) + b"\n")


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """Every entry so far, in order; none if there is no file yet."""
    if path.exists():
        with path.open("rb") as lines:
            yield from map(orjson.loads, lines)
