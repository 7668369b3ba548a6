"""The table in docs/reliability.md, made from the committed report: `python -m ….document`."""

from pathlib import Path
from typing import Any

import orjson

from tests.reliability import report

DOCS = Path(__file__).resolve().parents[2] / "docs"
DOCUMENT = DOCS / "reliability.md"
REPORT = DOCS / "chaos.json"
BEGIN, END = "<!-- from docs/chaos.json -->\n", "<!-- end -->\n"


def committed() -> dict[str, Any]:
    """The report that was committed last."""
    told: dict[str, Any] = orjson.loads(REPORT.read_bytes())
    return told


def with_table(text: str, told: dict[str, Any]) -> str:
    """The document with the report's table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{report.table(told)}\n\n{report.faults_table(told)}\n\n{END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), committed()))
