"""The demo's witness knows a repeat from a gap."""

from datetime import UTC, date, datetime
from uuid import UUID

from deploy.local.demo.observer import Observer
from libs.shared.events import SegmentChanged
from libs.shared.ids import new_id
from tests.shared.streams import record_of

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def move(client: UUID, seq: int) -> SegmentChanged:
    return SegmentChanged(
        client_id=client,
        seq=seq,
        new_segment="lost",
        rule_version=1,
        as_of=date(2026, 3, 2),
        reason="purchase",
        occurred_at=NOON,
    )


def watched(*events: SegmentChanged) -> Observer:
    observer = Observer("nowhere:1", "")
    for event in events:
        observer._count(record_of(event))
    return observer


def test_a_repeat_is_no_gap_and_counts_once() -> None:
    client = new_id()
    moves = [move(client, seq) for seq in (1, 2, 3)]

    observer = watched(*moves, *moves)

    assert (observer.gaps, observer.repeats, observer.names["segment.changed"]) == (0, 3, 3)
    assert observer.segments[str(client)] == (3, "lost")


def test_a_missing_move_and_two_moves_in_the_wrong_order_are_gaps() -> None:
    client = new_id()

    assert watched(move(client, 1), move(client, 3)).gaps == 1
    assert watched(move(client, 2), move(client, 1)).gaps == 2
    assert watched(move(client, 1), move(client, 1)).gaps == 1  # two events with one seq
