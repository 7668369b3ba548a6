"""The rows of segment.changed that scoring writes out are those of the validated event."""

from datetime import UTC, date, datetime, timedelta, timezone
from uuid import UUID

import pytest

from libs.shared import context, outbox
from libs.shared.context import Context
from libs.shared.events import DealClosed, SegmentChanged
from libs.shared.ids import new_id, quick
from services.scoring.rfm import Scores
from services.scoring.segment_moves import outbox_row
from services.scoring.standing import Change

CLIENT = quick("018f0000-0000-7000-8000-00000000000a")
AT = datetime(1997, 6, 1, 12, 30, 15, 123456, tzinfo=UTC)
FIRST = Change(CLIENT, 1, None, "new", Scores(5, 1, 2), 3, date(1997, 6, 1), AT, "purchase")
# An instant as pydantic reads it from JSON, whose zone is of a class of its own.
DEAL = DealClosed.model_validate_json(
    b'{"deal_id":"018f0000-0000-7000-8000-00000000000d","client_id":"%s",'
    b'"closed_at":"1997-06-01T10:00:00Z","amount_minor":1999,"currency":"USD",'
    b'"occurred_at":"1997-06-01T12:00:00.5Z"}' % str(CLIENT).encode()
).received_as(new_id(), Context("order-1", None, f"00-{1:032x}-{2:016x}-01"))

CHANGES = {
    "first": FIRST,
    "moved": FIRST._replace(seq=2, old_segment="new", new_segment="лояльные", reason="ageing"),
    "nothing left": FIRST._replace(new_segment=None, scores=None, reason="reversal"),
    "whole second": FIRST._replace(changed_at=AT.replace(microsecond=0)),
    "as heard": FIRST._replace(changed_at=DEAL.occurred_at),
}


def validated(change: Change, cause: DealClosed | None) -> SegmentChanged:
    recency, frequency, monetary = change.scores or (None, None, None)
    event = SegmentChanged(
        client_id=UUID(str(change.client_id)),
        seq=change.seq,
        old_segment=change.old_segment,
        new_segment=change.new_segment,
        recency_score=recency,
        frequency_score=frequency,
        monetary_score=monetary,
        rule_version=change.rule_version,
        as_of=change.as_of,
        reason=change.reason,
        occurred_at=change.changed_at,
    )
    return event.caused_by(cause) if cause else event


@pytest.mark.parametrize("cause", [None, DEAL], ids=["by time", "by a deal"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_row_is_that_of_the_validated_event(change: Change, cause: DealClosed | None) -> None:
    with context.bound(correlation_id="batch-7", traceparent=f"00-{3:032x}-{4:016x}-01"):
        ours = dict(zip(outbox.COLUMNS, outbox_row(change, cause), strict=True))
        theirs = dict(zip(outbox.COLUMNS, outbox.row_of(validated(change, cause)), strict=True))
    assert ours.pop("event_id") != theirs.pop("event_id")
    assert ours == theirs


def test_every_member_of_the_event_is_written() -> None:
    data = outbox_row(FIRST, None)[outbox.COLUMNS.index("data")]
    assert isinstance(data, bytes)
    told = SegmentChanged.model_validate_json(data)
    assert told.model_fields_set == set(SegmentChanged.model_fields)


def test_instants_of_other_zones_state_the_same_instant() -> None:
    east = FIRST._replace(changed_at=AT.astimezone(timezone(timedelta(hours=3))))
    data = outbox_row(east, None)[outbox.COLUMNS.index("data")]
    assert isinstance(data, bytes)
    assert SegmentChanged.model_validate_json(data).occurred_at == AT
