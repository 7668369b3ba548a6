"""Business hours, as a supervisor would write them on a sheet of paper."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker
from pydantic import ValidationError

from libs.shared.calendars import Calendar, Hours, NeverOpen

# Monday to Friday 9-13 and 14-18; Unity Day on Wednesday 4 November 2026; by decree Saturday the
# 14th is worked till lunch, and Monday the 16th is off instead.
OFFICE = """
{"zone": "Asia/Yekaterinburg", "holiday_country": "RU",
 "special_days": {"2026-11-14": [{"opens_at": "09:00", "closes_at": "13:00"}], "2026-11-16": null}}
"""
# Seven nights a week, 22 to 6; Friday's shift also has an hour at noon.
NIGHT = """
{"zone": "Europe/Berlin", "week": {
 "monday": [{"opens_at": "22:00", "closes_at": "06:00"}],
 "tuesday": [{"opens_at": "22:00", "closes_at": "06:00"}],
 "wednesday": [{"opens_at": "22:00", "closes_at": "06:00"}],
 "thursday": [{"opens_at": "22:00", "closes_at": "06:00"}],
 "friday": [{"opens_at": "12:00", "closes_at": "13:00"},
            {"opens_at": "22:00", "closes_at": "06:00"}],
 "saturday": [{"opens_at": "22:00", "closes_at": "06:00"}],
 "sunday": [{"opens_at": "22:00", "closes_at": "06:00"}]},
 "special_days": {"2026-12-24": null}}
"""
ISTANBUL = """{"zone": "Europe/Istanbul"}"""
AROUND_THE_CLOCK = """
{"zone": "Europe/Berlin", "week": {
 "monday": [{"opens_at": "00:00", "closes_at": "00:00"}],
 "tuesday": [{"opens_at": "00:00", "closes_at": "00:00"}],
 "wednesday": [{"opens_at": "00:00", "closes_at": "00:00"}],
 "thursday": [{"opens_at": "00:00", "closes_at": "00:00"}],
 "friday": [{"opens_at": "00:00", "closes_at": "00:00"}],
 "saturday": [{"opens_at": "00:00", "closes_at": "00:00"}],
 "sunday": [{"opens_at": "00:00", "closes_at": "00:00"}]}}
"""
CALENDARS = {
    "office": Calendar.model_validate_json(OFFICE),
    "night": Calendar.model_validate_json(NIGHT),
    "istanbul": Calendar.model_validate_json(ISTANBUL),
    "always": Calendar.model_validate_json(AROUND_THE_CLOCK),
}


def at(calendar: str, wall: str) -> datetime:
    zone = ZoneInfo(CALENDARS[calendar].zone)
    return datetime.fromisoformat(wall).replace(tzinfo=zone).astimezone(UTC)


def shown(calendar: str, moment: datetime) -> str:
    local = moment.astimezone(ZoneInfo(CALENDARS[calendar].zone))
    return local.strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("calendar", "wall", "is_open"),
    [
        ("office", "2026-11-02 09:00", True),  # Monday, opening time
        ("office", "2026-11-02 08:59", False),
        ("office", "2026-11-02 13:00", False),  # lunch begins
        ("office", "2026-11-02 13:30", False),
        ("office", "2026-11-02 14:00", True),
        ("office", "2026-11-02 18:00", False),  # closing time
        ("office", "2026-11-04 10:00", False),  # public holiday
        ("office", "2026-11-07 10:00", False),  # Saturday
        ("office", "2026-11-14 10:00", True),  # Saturday worked by decree
        ("office", "2026-11-14 15:00", False),  # ... till lunch
        ("office", "2026-11-16 10:00", False),  # the day off it was moved to
        ("night", "2026-11-03 03:00", True),  # Monday's shift goes on
        ("night", "2026-11-03 06:00", False),
        ("night", "2026-11-06 12:30", True),
        ("night", "2026-12-24 03:00", True),  # the shift of the 23rd
        ("night", "2026-12-24 23:00", False),  # cancelled with the day it begins on
        ("night", "2026-12-25 03:00", False),
        ("always", "2026-11-08 00:00", True),
    ],
)
def test_when_somebody_works(calendar: str, wall: str, is_open: bool) -> None:
    assert CALENDARS[calendar].is_open(at(calendar, wall)) is is_open


@pytest.mark.parametrize(
    ("calendar", "wall", "until"),
    [
        ("office", "2026-11-02 09:00", "2026-11-02 13:00"),
        ("office", "2026-11-02 13:00", None),
        ("office", "2026-11-02 17:59", "2026-11-02 18:00"),
        ("office", "2026-11-04 10:00", None),
        ("night", "2026-11-03 05:59", "2026-11-03 06:00"),
    ],
)
def test_until_when_somebody_works(calendar: str, wall: str, until: str | None) -> None:
    ends = CALENDARS[calendar].open_until(at(calendar, wall))
    assert (None if ends is None else shown(calendar, ends)) == until


@pytest.mark.parametrize(
    ("calendar", "wall", "opens"),
    [
        ("office", "2026-11-02 10:00", "2026-11-02 10:00"),  # open: now
        ("office", "2026-11-02 13:00", "2026-11-02 14:00"),  # lunch
        ("office", "2026-11-06 18:00", "2026-11-09 09:00"),  # Friday evening
        ("office", "2026-11-03 19:00", "2026-11-05 09:00"),  # the evening before the holiday
        ("office", "2026-11-14 13:00", "2026-11-17 09:00"),  # after the moved Saturday
        ("office", "2026-12-30 20:00", "2027-01-11 09:00"),  # New Year
        ("night", "2026-11-06 07:00", "2026-11-06 12:00"),
        ("night", "2026-12-24 07:00", "2026-12-25 12:00"),
    ],
)
def test_when_it_opens_next(calendar: str, wall: str, opens: str) -> None:
    assert shown(calendar, CALENDARS[calendar].next_open(at(calendar, wall))) == opens


@pytest.mark.parametrize(
    ("calendar", "wall", "minutes", "due"),
    [
        ("office", "2026-11-02 10:00", 15, "2026-11-02 10:15"),
        ("office", "2026-11-06 17:50", 15, "2026-11-09 09:05"),  # Friday evening
        ("office", "2026-11-06 17:45", 15, "2026-11-06 18:00"),  # exactly at closing time
        ("office", "2026-11-06 22:00", 15, "2026-11-09 09:15"),
        ("office", "2026-11-02 12:50", 15, "2026-11-02 14:05"),  # over lunch
        ("office", "2026-11-03 17:00", 120, "2026-11-05 10:00"),  # over the holiday
        ("office", "2026-11-13 17:00", 420, "2026-11-17 11:00"),  # over the moved days
        ("office", "2026-11-06 20:00", 0, "2026-11-09 09:00"),
        ("night", "2026-11-02 23:30", 60, "2026-11-03 00:30"),  # past midnight
        ("night", "2026-11-03 05:30", 60, "2026-11-03 22:30"),
        # The night of the change to summer time has seven hours, the one back has nine.
        ("night", "2026-03-28 22:00", 7 * 60, "2026-03-29 06:00"),
        ("night", "2026-10-24 22:00", 9 * 60, "2026-10-25 06:00"),
        ("always", "2026-03-28 12:00", 24 * 60, "2026-03-29 13:00"),
    ],
)
def test_when_so_much_working_time_has_passed(
    calendar: str, wall: str, minutes: int, due: str
) -> None:
    moment = CALENDARS[calendar].add_working_time(at(calendar, wall), timedelta(minutes=minutes))

    assert shown(calendar, moment) == due


@pytest.mark.parametrize(
    ("calendar", "wall", "days", "due"),
    [
        ("office", "2026-11-02 10:00", 0, "2026-11-02 10:00"),
        ("office", "2026-11-02 10:00", 1, "2026-11-03 10:00"),
        ("office", "2026-11-03 10:00", 1, "2026-11-05 10:00"),  # over the holiday
        ("office", "2026-11-06 10:00", 1, "2026-11-09 10:00"),  # over the weekend
        ("office", "2026-11-13 10:00", 1, "2026-11-14 10:00"),  # the worked Saturday counts
        ("office", "2026-11-13 10:00", 2, "2026-11-17 10:00"),
        ("night", "2026-03-28 12:00", 1, "2026-03-29 12:00"),  # the same wall-clock time
    ],
)
def test_so_many_working_days_later(calendar: str, wall: str, days: int, due: str) -> None:
    assert shown(calendar, CALENDARS[calendar].add_working_days(at(calendar, wall), days)) == due


@pytest.mark.parametrize(
    ("calendar", "begin", "end", "minutes"),
    [
        ("office", "2026-11-02 09:00", "2026-11-02 18:00", 8 * 60),
        ("office", "2026-11-06 17:00", "2026-11-09 10:00", 2 * 60),
        ("office", "2026-11-02 00:00", "2026-11-09 00:00", 4 * 8 * 60),  # the holiday's week
        ("office", "2026-11-09 10:00", "2026-11-06 17:00", -2 * 60),
        ("night", "2026-03-28 12:00", "2026-03-29 12:00", 7 * 60),
        ("night", "2026-10-24 12:00", "2026-10-25 12:00", 9 * 60),
        ("always", "2026-10-24 12:00", "2026-10-25 12:00", 25 * 60),
    ],
)
def test_working_time_between_two_instants(
    calendar: str, begin: str, end: str, minutes: int
) -> None:
    found = CALENDARS[calendar].working_time_between(at(calendar, begin), at(calendar, end))

    assert found == timedelta(minutes=minutes)


def test_nine_oclock_comes_earlier_in_yekaterinburg_than_in_istanbul() -> None:
    monday = datetime(2026, 11, 2, tzinfo=UTC)

    assert CALENDARS["office"].next_open(monday) == datetime(2026, 11, 2, 4, tzinfo=UTC)
    assert CALENDARS["istanbul"].next_open(monday) == datetime(2026, 11, 2, 6, tzinfo=UTC)


def test_hours_that_summer_time_swallows_do_not_open() -> None:
    hours = [{"opens_at": "02:00", "closes_at": "03:00"}]
    calendar = Calendar.model_validate({"zone": "Europe/Berlin", "week": {"sunday": hours}})
    skipped = datetime(2026, 3, 28, 12, tzinfo=UTC)

    assert calendar.next_open(skipped) == datetime(2026, 4, 5, 0, tzinfo=UTC)


def test_a_calendar_that_never_opens_says_so() -> None:
    closed = {date(2026, 1, 1) + timedelta(days=n): None for n in range(500)}
    calendar = Calendar.model_validate({"special_days": closed})
    begin = datetime(2026, 1, 1, tzinfo=UTC)

    with pytest.raises(NeverOpen, match="400 days"):
        calendar.next_open(begin)
    with pytest.raises(NeverOpen, match="400 days"):
        calendar.add_working_time(begin, timedelta(minutes=1))
    with pytest.raises(NeverOpen, match="400 days"):
        calendar.add_working_days(begin, 1)
    assert not calendar.is_open(begin)
    assert calendar.working_time_between(begin, begin + timedelta(days=300)) == timedelta(0)


def test_time_is_added_forward_only() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="forward"):
        Calendar().add_working_time(begin, timedelta(seconds=-1))
    with pytest.raises(ValueError, match="forward"):
        Calendar().add_working_days(begin, -1)


@pytest.mark.parametrize(
    "bad",
    [
        {"zone": "Europe/Nowhere"},
        {"week": {"mon": []}},
        {"week": {}},
        {"week": {"monday": [{"opens_at": "09:00", "closes_at": "25:00"}]}},
        {"week": {"monday": [{"opens_at": "09:00+03:00", "closes_at": "10:00"}]}},
        {
            "week": {
                "monday": [
                    {"opens_at": "09:00", "closes_at": "12:00"},
                    {"opens_at": "11:00", "closes_at": "13:00"},
                ]
            }
        },
        {"holiday_country": "XX"},
        {"holiday_country": "Russia"},
        {"special_days": {"2026-02-30": None}},
        {"hours": []},
    ],
)
def test_a_calendar_that_makes_no_sense_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Calendar.model_validate(bad)


@pytest.mark.parametrize("name", CALENDARS)
def test_a_calendar_survives_being_stored(name: str) -> None:
    calendar = CALENDARS[name]

    assert Calendar.model_validate_json(calendar.model_dump_json()) == calendar


_ZONES = [
    "Asia/Yekaterinburg",
    "Europe/Istanbul",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Tokyo",
]
_MINUTES = st.integers(min_value=0, max_value=1439)


@st.composite
def calendars(draw: st.DrawFn) -> Calendar:
    marks = st.lists(_MINUTES, min_size=2, max_size=6, unique=True).map(sorted)
    week = {}
    for day in draw(st.sets(st.sampled_from(["monday", "wednesday", "saturday"]), min_size=1)):
        ends = draw(marks)
        pairs = zip(ends[::2], ends[1::2], strict=False)
        week[day] = tuple(Hours(opens_at=_time(a), closes_at=_time(b)) for a, b in pairs)
    night = draw(st.booleans())
    if night:
        week["sunday"] = (Hours(opens_at=time(22), closes_at=time(6)),)
    return Calendar.model_validate({"zone": draw(st.sampled_from(_ZONES)), "week": week})


def _time(minutes: int) -> time:
    return time(minutes // 60, minutes % 60)


_MOMENTS = st.integers(min_value=0, max_value=4 * 366 * 24 * 60).map(
    lambda minutes: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)
_SPANS = st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=60))


@settings(deadline=None, max_examples=200)
@given(calendar=calendars(), moment=_MOMENTS, span=_SPANS)
def test_what_was_added_lies_between(calendar: Calendar, moment: datetime, span: timedelta) -> None:
    later = calendar.add_working_time(moment, span)

    assert calendar.working_time_between(moment, later) == span


@settings(deadline=None)
@given(calendar=calendars(), moment=_MOMENTS, one=_SPANS, two=_SPANS)
def test_adding_twice_is_adding_the_sum(
    calendar: Calendar, moment: datetime, one: timedelta, two: timedelta
) -> None:
    at_once = calendar.add_working_time(moment, one + two)
    in_turn = calendar.add_working_time(calendar.add_working_time(moment, one), two)

    # A deadline at closing time and the next opening are the same point of working time.
    assert calendar.working_time_between(at_once, in_turn) == timedelta(0)


@settings(deadline=None)
@given(calendar=calendars(), moment=_MOMENTS)
def test_the_next_opening_is_open_and_nothing_before_it_is(
    calendar: Calendar, moment: datetime
) -> None:
    opening = calendar.next_open(moment)

    assert opening >= moment
    assert calendar.is_open(opening)
    assert calendar.working_time_between(moment, opening) == timedelta(0)


def test_a_calendar_in_json_is_what_its_schema_says() -> None:
    schema = Calendar.model_json_schema(mode="serialization")

    Draft202012Validator(schema, format_checker=FormatChecker()).validate(
        Calendar().model_dump(mode="json")
    )
    assert "format" not in schema["$defs"]["Hours"]["properties"]["opens_at"]
