"""docs/reliability.md says what the report says, and the report keeps what is promised."""

from tests.reliability import document, report
from tests.reliability.__main__ import SIZES


def test_the_document_has_the_table_of_the_committed_report() -> None:
    text = document.DOCUMENT.read_text()
    assert document.with_table(text, document.committed()) == text


def test_the_committed_run_kept_every_promise() -> None:
    told = document.committed()
    size = SIZES[told["size"]]
    assert report.failures(told, events=size.events, faults=size.faults) == []
    assert len(told["controls"]) == report.CONTROLS + 1  # and the healthy one


def test_a_report_that_breaks_a_promise_is_refused() -> None:
    told = document.committed()
    for name in (*report.MUST_BE_ZERO, "dead_letters_missing", "dead_letters_left"):
        assert report.failures({**told, name: 1}, events=0, faults=0), name
    assert report.failures({**told, "drain_seconds": 61.0}, events=0, faults=0)
    assert report.failures({**told, "longest_stall_seconds": 15.1}, events=0, faults=0)
    assert report.failures({**told, "accepted_without_kafka": 0}, events=0, faults=0)
    assert report.failures({**told, "failpoints": {"relay.read": 0}}, events=0, faults=0)
    assert report.failures({**told, "controls": {"no inbox": "missed"}}, events=0, faults=0)
    assert report.failures(told, events=10**9, faults=0)
    assert report.failures(told, events=0, faults=10**6)
