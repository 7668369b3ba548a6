"""What docs/subscribing.md shows the authors of other systems is what CI runs."""

import re
from pathlib import Path

from libs.shared.events import SegmentChanged

DOCS = Path(__file__).resolve().parents[2] / "docs"
MOST_LINES = 40


def test_the_program_in_the_document_is_the_one_that_runs() -> None:
    program = (DOCS / "examples/segments_subscriber.py").read_text()
    shown = re.findall(r"```python\n(.*?)```", (DOCS / "subscribing.md").read_text(), re.DOTALL)

    assert shown == [program]
    assert len(program.splitlines()) <= MOST_LINES


def test_the_document_shows_every_field_of_the_event() -> None:
    shown = (DOCS / "subscribing.md").read_text()

    fields = set(SegmentChanged.model_fields) - {"event_id", "occurred_at", "thread"}
    assert {name for name in fields if f'"{name}"' not in shown} == set()
