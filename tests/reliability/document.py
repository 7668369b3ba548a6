"""The tables in docs/reliability.md, made from the committed reports: `python -m ….document`."""

from pathlib import Path
from typing import Any

import orjson

from tests.reliability import report

DOCS = Path(__file__).resolve().parents[2] / "docs"
DOCUMENT = DOCS / "reliability.md"
REPORTS = ("chaos.json", "chaos-long.json")
END = "<!-- end -->\n"


def committed(name: str) -> dict[str, Any]:
    """The report that was committed last."""
    told: dict[str, Any] = orjson.loads((DOCS / name).read_bytes())
    return told


def with_tables(text: str) -> str:
    """The document with the reports' tables in their places."""
    for name in REPORTS:
        begin = f"<!-- from docs/{name} -->\n"
        before, found, rest = text.partition(begin)
        if not found:
            raise ValueError(f"there is no place for {name}")
        _, _, after = rest.partition(END)
        told = committed(name)
        tables = f"{report.table(told)}\n\n{report.faults_table(told)}"
        text = f"{before}{begin}\n{tables}\n\n{END}{after}"
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))
