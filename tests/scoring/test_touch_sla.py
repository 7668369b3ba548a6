"""A touch is due on the working day that the segment's SLA says."""

from datetime import date, timedelta

import pytest
from pydantic import ValidationError

from libs.shared.calendars import Calendar
from services.scoring.presets import EVERY_TEN_WORKING_DAYS, SAME_WORKING_DAY, WEEKLY
from services.scoring.rules import OtherSegment
from services.scoring.touch_sla import TouchSla, touch_due_on, working_days

CALENDAR = Calendar(special_days={date(2025, 6, 12): None})  # a holiday on a Thursday
DAYS = working_days(CALENDAR, [EVERY_TEN_WORKING_DAYS], date(2025, 6, 20))
FRIDAY, SATURDAY, MONDAY = date(2025, 6, 6), date(2025, 6, 7), date(2025, 6, 9)


@pytest.mark.parametrize(
    ("bought", "touched", "due"),
    [
        (FRIDAY, None, FRIDAY),
        (SATURDAY, None, MONDAY),  # the first working day
        (date(2025, 6, 12), None, date(2025, 6, 13)),  # after the holiday
        (FRIDAY, date(2025, 6, 5), FRIDAY),  # spoken with before it was bought
        (FRIDAY, FRIDAY, None),
    ],
)
def test_a_purchase_asks_for_a_touch_on_its_working_day(
    bought: date, touched: date | None, due: date | None
) -> None:
    found = touch_due_on(SAME_WORKING_DAY, last_purchase=bought, last_touch=touched, days=DAYS)
    assert found == due


def test_ten_working_days_skip_weekends_and_holidays() -> None:
    due = touch_due_on(EVERY_TEN_WORKING_DAYS, last_purchase=FRIDAY, last_touch=None, days=DAYS)
    assert due == date(2025, 6, 23)  # two weeks and the holiday
    later = touch_due_on(EVERY_TEN_WORKING_DAYS, last_purchase=FRIDAY, last_touch=MONDAY, days=DAYS)
    assert later == date(2025, 6, 24)


def test_a_week_is_seven_days_of_any_kind() -> None:
    due = touch_due_on(WEEKLY, last_purchase=FRIDAY, last_touch=None, days=DAYS)
    assert due == date(2025, 6, 13)


def test_same_day_and_repeats_go_together() -> None:
    both = TouchSla(same_working_day=True, every=5, unit="working_days")
    assert touch_due_on(both, last_purchase=SATURDAY, last_touch=None, days=DAYS) == MONDAY
    assert touch_due_on(both, last_purchase=SATURDAY, last_touch=MONDAY, days=DAYS) == date(
        2025, 6, 17
    )


def test_plain_days_of_older_rule_sets_still_hold() -> None:
    assert OtherSegment(touch_every_days=14).sla == TouchSla(every=14)


@pytest.mark.parametrize(
    "sla", [{}, {"every": 0}, {"every": 400, "unit": "working_days"}, {"unit": "weeks", "every": 1}]
)
def test_an_sla_that_asks_for_nothing_or_too_much_is_refused(sla: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TouchSla.model_validate(sla)


def test_a_week_that_ends_on_a_day_off_goes_on_to_the_next_working_day() -> None:
    due = touch_due_on(WEEKLY, last_purchase=SATURDAY, last_touch=None, days=DAYS)
    assert due == date(2025, 6, 16)


def test_a_habit_asks_for_a_touch_before_the_next_purchase() -> None:
    sla = TouchSla(every=90, before_expected=5)

    def due(touched: date | None = None, usual: int | None = 30) -> date | None:
        expected_on = FRIDAY + timedelta(usual) if usual else None
        return touch_due_on(
            sla, last_purchase=FRIDAY, last_touch=touched, days=DAYS, expected_on=expected_on
        )

    # Expected on 6 July, five days before is 1 July, a Tuesday.
    assert due() == date(2025, 7, 1)
    assert due(usual=33) == date(2025, 7, 4)
    assert due(usual=34) == date(2025, 7, 4)  # a Saturday: the last working day before
    assert due(usual=None) == date(2025, 9, 4)  # no habit
    assert due(touched=date(2025, 6, 20)) == date(2025, 7, 1)  # too early for the next purchase
    assert due(touched=date(2025, 7, 1)) == date(2025, 9, 29)  # spoken with: as everybody else
    assert due(usual=4) == date(2025, 9, 4)  # would be before the last purchase


def test_a_due_day_is_the_same_whenever_it_is_computed() -> None:
    later = working_days(CALENDAR, [TouchSla(every=30)], date(2028, 12, 31))
    long_ago = date(2013, 5, 7)
    for sla in (EVERY_TEN_WORKING_DAYS, WEEKLY, SAME_WORKING_DAY):
        assert touch_due_on(
            sla, last_purchase=long_ago, last_touch=None, days=DAYS
        ) == touch_due_on(sla, last_purchase=long_ago, last_touch=None, days=later)
