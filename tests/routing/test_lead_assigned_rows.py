"""The rows of lead.assigned that a sitting writes out are those of the validated event."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from libs.shared import context, outbox
from libs.shared.events import LeadAssigned
from libs.shared.ids import new_id, quick
from services.routing.choosing.sitting import Outcome
from services.routing.deciding import assigned_row

AT = datetime(2026, 3, 2, 12, 30, 15, 123456, tzinfo=UTC)
UNTIL = AT + timedelta(minutes=15)
CLIENT, LEAD, MANAGER = (quick(new_id()) for _ in range(3))
OFFERED = Outcome(LEAD, MANAGER, 3, 1, "round robin, turn 12")
REASONS = {"plain": OFFERED.why, "in quotes": 'свой "менеджер"\n', "empty": ""}


def validated(outcome: Outcome, now: datetime, until: datetime) -> LeadAssigned:
    return LeadAssigned(
        lead_id=UUID(str(outcome.lead_id)),
        client_id=UUID(str(CLIENT)),
        manager_id=UUID(str(outcome.manager_id)),
        epoch=outcome.epoch,
        claim_until=until,
        reason=outcome.why,
        occurred_at=now,
    )


@pytest.mark.parametrize("now", [AT, AT.replace(microsecond=0)], ids=["instant", "whole second"])
@pytest.mark.parametrize("why", REASONS.values(), ids=REASONS)
def test_row_is_that_of_the_validated_event(why: str, now: datetime) -> None:
    outcome = Outcome(LEAD, MANAGER, 3, 1, why)
    with context.bound(correlation_id="batch-7", traceparent=f"00-{3:032x}-{4:016x}-01"):
        ours = dict(zip(outbox.COLUMNS, assigned_row(outcome, CLIENT, now, UNTIL), strict=True))
        event = validated(outcome, now, UNTIL)
        theirs = dict(zip(outbox.COLUMNS, outbox.row_of(event), strict=True))
    assert ours.pop("event_id") != theirs.pop("event_id")
    assert ours == theirs


def test_every_member_of_the_event_is_written() -> None:
    data = assigned_row(OFFERED, CLIENT, AT, UNTIL)[outbox.COLUMNS.index("data")]
    assert isinstance(data, bytes)
    told = LeadAssigned.model_validate_json(data)
    assert told.model_fields_set == set(LeadAssigned.model_fields)


def test_instants_of_other_zones_state_the_same_instant() -> None:
    east = timezone(timedelta(hours=3))
    row = assigned_row(OFFERED, CLIENT, AT.astimezone(east), UNTIL.astimezone(east))
    data = row[outbox.COLUMNS.index("data")]
    assert isinstance(data, bytes)
    told = LeadAssigned.model_validate_json(data)
    assert (told.occurred_at, told.claim_until) == (AT, UNTIL)
