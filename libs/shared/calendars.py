"""When people work: business hours with lunch breaks, night shifts, holidays and moved days.

A calendar is policy data. It is written in the wall-clock time of its zone and turned into
instants day by day, so that 9:00 stays 9:00 across a change to summer time. A shift that passes
midnight belongs to the day it begins on: it is that day's holiday that cancels it.

Everything here is pure; instants are aware and come back in UTC.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

import holidays
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from libs.shared.field_types import CalendarDay, WallTime, Zone

MAX_CLOSED_DAYS = 400
DAY = timedelta(days=1)
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class NeverOpen(ValueError):
    """Nothing opens within 400 days: the calendar has no hours, or holidays on all of them."""


class Hours(BaseModel):
    """From when to when, in wall-clock time. `closes_at` not later than `opens_at` is tomorrow.

    00:00 to 00:00 is the whole day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    opens_at: WallTime
    closes_at: WallTime

    @model_validator(mode="after")
    def _plain_times(self) -> Self:
        if self.opens_at.tzinfo or self.closes_at.tzinfo:
            raise ValueError("times have no offset: they are in the calendar's zone")
        return self

    @property
    def span(self) -> tuple[int, int]:
        """Beginning and end in wall-clock microseconds since the day's midnight."""
        begins, ends = _since_midnight(self.opens_at), _since_midnight(self.closes_at)
        return begins, ends if ends > begins else ends + _since_midnight(time.max) + 1


def _since_midnight(at: time) -> int:
    return ((at.hour * 60 + at.minute) * 60 + at.second) * 1_000_000 + at.microsecond


def _apart(day: tuple[Hours, ...]) -> tuple[Hours, ...]:
    ordered = tuple(sorted(day, key=lambda hours: hours.opens_at))
    for before, after in pairwise(ordered):
        if before.span[1] > after.span[0]:
            raise ValueError("hours of one day overlap")
    return ordered


Day = Annotated[tuple[Hours, ...], Field(max_length=10), AfterValidator(_apart)]


def _nine_to_six() -> dict[str, Day]:
    day = (
        Hours(opens_at=time(9), closes_at=time(13)),
        Hours(opens_at=time(14), closes_at=time(18)),
    )
    return dict.fromkeys(WEEKDAYS[:5], day)


class Calendar(BaseModel):
    """Working hours of a company, a team or a person.

    Attributes:
        week: Hours by weekday; a day left out is closed.
        special_days: Overrides of single days: null is closed, hours are worked whatever the
            week and the country say. A moved day off is two entries.
        holiday_country: Public holidays of this country (ISO 3166) are closed; null: of none.
            They are only defaults: decrees move days every year, put those into special_days.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    zone: Zone = "Europe/Moscow"
    week: dict[str, Day] = Field(default_factory=_nine_to_six)
    special_days: Annotated[dict[CalendarDay, Day | None], Field(max_length=2000)] = {}
    holiday_country: Annotated[str | None, Field(pattern="^[A-Z]{2}$")] = None

    @field_validator("week")
    @classmethod
    def _known_weekdays(cls, week: dict[str, Day]) -> dict[str, Day]:
        if unknown := set(week) - set(WEEKDAYS):
            raise ValueError(f"not a weekday: {len(unknown)} names; use monday to sunday")
        if not any(week.values()):
            raise ValueError("the week has no hours at all")
        return week

    @field_validator("holiday_country")
    @classmethod
    def _known_country(cls, country: str | None) -> str | None:
        if country is not None and country not in holidays.list_supported_countries():
            raise ValueError("no public holidays are known for this country")
        return country

    def is_open(self, at: datetime) -> bool:
        """Whether somebody works at this instant; at closing time nobody does any more."""
        return any(begin <= at < end for begin, end in self._open_from(at, days=1))

    def open_until(self, at: datetime) -> datetime | None:
        """When work that goes on at this instant ends; None: nobody works."""
        for begin, end in self._open_from(at, days=1):
            if begin <= at < end:
                return end
        return None

    def next_open(self, at: datetime) -> datetime:
        """The first instant not before `at` at which somebody works.

        Raises:
            NeverOpen: There is none within 400 days.
        """
        for begin, end in self._open_from(at):
            if end > at:
                return max(begin, at.astimezone(UTC))
        raise NeverOpen(f"{self.zone}: nothing opens within {MAX_CLOSED_DAYS} days")

    def next_opening(self, at: datetime) -> datetime:
        """The first instant after `at` at which work begins, whether or not it goes on at `at`.

        Raises:
            NeverOpen: There is none within 400 days.
        """
        for begin, _ in self._open_from(at):
            if begin > at:
                return begin
        raise NeverOpen(f"{self.zone}: nothing opens within {MAX_CLOSED_DAYS} days")

    def add_working_time(self, at: datetime, by: timedelta) -> datetime:
        """The instant by which so much working time has passed.

        A deadline reached exactly at closing time stays there. Nothing added to closed hours is
        the next opening.

        Raises:
            ValueError: `by` is negative.
            NeverOpen: Nothing opens for 400 days on the way.
        """
        if by < timedelta(0):
            raise ValueError("working time is added forward only")
        left = by
        moment = self.next_open(at)
        while True:
            last = moment
            for begin, end in self._open_from(moment):
                start = max(begin, moment)
                if end <= start:
                    continue
                if end - start >= left:
                    return start + left
                left -= end - start
                last = end
            if last == moment:
                raise NeverOpen(f"{self.zone}: nothing opens within {MAX_CLOSED_DAYS} days")
            moment = last

    def add_working_days(self, at: datetime, days: int) -> datetime:
        """The same wall-clock time so many working days later.

        A working day is one on which hours begin. Zero days leave the instant as it is, whether
        open or not; a time outside the hours of the day arrived at stays outside of them.

        Raises:
            ValueError: `days` is negative.
            NeverOpen: Nothing opens for 400 days on the way.
        """
        if days < 0:
            raise ValueError("working days are added forward only")
        local = at.astimezone(ZoneInfo(self.zone))
        day, closed = local.date(), 0
        while days:
            day += DAY
            if self.hours_of(day):
                days, closed = days - 1, 0
            else:
                closed += 1
            if closed > MAX_CLOSED_DAYS:
                raise NeverOpen(f"{self.zone}: nothing opens within {MAX_CLOSED_DAYS} days")
        return self._instant(day, _since_midnight(local.time()), fold=local.fold)

    def working_time_between(self, begin: datetime, end: datetime) -> timedelta:
        """How much working time lies between two instants; negative when they are swapped."""
        if end < begin:
            return -self.working_time_between(end, begin)
        total = timedelta(0)
        days = (end - begin).days + 2
        for opens, closes in self._open_from(begin, days=days):
            overlap = min(closes, end) - max(opens, begin)
            total += max(overlap, timedelta(0))
        return total

    def hours_of(self, day: date) -> tuple[Hours, ...]:
        """The hours that begin on a day; empty when it is closed."""
        if day in self.special_days:
            return self.special_days[day] or ()
        if self.holiday_country and _is_holiday(self.holiday_country, day):
            return ()
        return self.week.get(WEEKDAYS[day.weekday()], ())

    def span_of(self, day: date) -> tuple[datetime, datetime] | None:
        """From the first opening of a day to its last closing, lunch included; None when closed."""
        hours = self.hours_of(day)
        if not hours:
            return None
        begins, ends = min(h.span[0] for h in hours), max(h.span[1] for h in hours)
        return self._instant(day, begins), self._instant(day, ends)

    def _open_from(
        self, at: datetime, days: int = MAX_CLOSED_DAYS
    ) -> Iterator[tuple[datetime, datetime]]:
        """Open intervals in order and apart, from the one that may hold `at` on."""
        first = at.astimezone(ZoneInfo(self.zone)).date() - DAY  # its night shift may go on
        reached = datetime.min.replace(tzinfo=UTC)
        for number in range(days + 2):
            day = first + number * DAY
            for hours in self.hours_of(day):
                begins, ends = hours.span
                begin = max(self._instant(day, begins), reached)
                end = self._instant(day, ends)
                # A night shift may run into the next day's hours, a change to summer time may
                # swallow hours whole.
                if end > begin:
                    yield begin, end
                    reached = end

    def _instant(self, day: date, microseconds: int, fold: int = 0) -> datetime:
        """Wall-clock time of a day in UTC.

        A time that a change to summer time skips is taken as if the clock had not been changed; of
        a time that comes twice the first is taken.
        """
        wall = datetime.combine(day, time(0)) + timedelta(microseconds=microseconds)
        return wall.replace(tzinfo=ZoneInfo(self.zone), fold=fold).astimezone(UTC)


@lru_cache(maxsize=256)
def _holidays_of(country: str, year: int) -> Mapping[date, Any]:
    return dict(holidays.country_holidays(country, years=year))


def _is_holiday(country: str, day: date) -> bool:
    return day in _holidays_of(country, day.year)
