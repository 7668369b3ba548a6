"""docs/reliability.md says what the reports say, and they keep what is promised."""

import pytest

from tests.reliability import document, report
from tests.reliability.__main__ import SIZES

# What a run has not kept stays here until one has.
NOT_KEPT: dict[str, list[str]] = {"chaos.json": [], "chaos-long.json": []}


def test_the_document_has_the_tables_of_the_committed_reports() -> None:
    text = document.DOCUMENT.read_text()
    assert document.with_tables(text) == text


@pytest.mark.parametrize("name", document.REPORTS)
def test_the_committed_runs_kept_what_is_promised(name: str) -> None:
    told = document.committed(name)
    size = SIZES[told["size"]]
    assert report.failures(told, events=size.events, faults=size.faults) == NOT_KEPT[name]
    assert len(told["controls"]) == report.CONTROLS + 1  # and the healthy one


def test_a_report_that_breaks_a_promise_is_refused() -> None:
    told = document.committed("chaos.json")
    for name in (*report.MUST_BE_ZERO, "dead_letters_missing", "dead_letters_left"):
        assert report.failures({**told, name: 1}, events=0, faults=0), name
    assert report.failures({**told, "drain_seconds": 61.0}, events=0, faults=0)
    assert report.failures({**told, "longest_stall_seconds": 15.1}, events=0, faults=0)
    assert report.failures({**told, "accepted_without_kafka": 0}, events=0, faults=0)
    assert report.failures({**told, "failpoints": {"relay.read": 0}}, events=0, faults=0)
    assert report.failures({**told, "controls": {"no inbox": "missed"}}, events=0, faults=0)
    assert report.failures(told, events=10**9, faults=0)
    assert report.failures(told, events=0, faults=10**6)
