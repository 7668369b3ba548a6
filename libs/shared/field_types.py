"""Types of fields that people and programs fill in, each with its limits. Pure pydantic.

They take what is meant and nothing that merely could be read so: a number is no yes or no, a text
is no number, and `20260701` is not an instant (seconds since 1970, pydantic would say).
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from typing import Annotated, Any
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
    WrapValidator,
)

MAX_INT = 2**63 - 1
_HAS_DASHED_YEAR = re.compile(r"[0-9]{4}-")
_WALL_TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?$"
_NO_PLACES = frozenset({"localtime", "Factory"})  # what they mean depends on the machine


def _instant(value: Any, parse: Callable[[Any], datetime]) -> datetime:
    if isinstance(value, str):
        if not _HAS_DASHED_YEAR.match(value):
            raise ValueError("use ISO 8601, as in 2026-07-01T10:00:00+03:00")
    elif not isinstance(value, datetime):
        raise ValueError("an instant is a string")
    moment = parse(value)
    if not 1800 < moment.year < 3000:
        raise ValueError("the year is not plausible")
    return moment.astimezone(UTC)


def _day(value: Any) -> Any:
    if isinstance(value, date) or (isinstance(value, str) and _HAS_DASHED_YEAR.match(value)):
        return value
    raise ValueError("use ISO 8601, as in 2026-07-01")


def _wall_time(value: Any) -> Any:
    if isinstance(value, str | time):
        return value
    raise ValueError("use hours and minutes, as in 09:00")


def _known_zone(zone: str) -> str:
    if zone in _NO_PLACES or zone not in available_timezones():
        raise ValueError("unknown time zone; use an IANA name such as Asia/Yekaterinburg")
    return zone


Text50 = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=50)]
Text200 = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Text2000 = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
Text20000 = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20000)]
Code = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
Flag = Annotated[bool, Field(strict=True)]
Int32 = Annotated[int, Field(strict=True, ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Field(strict=True, ge=-(2**63), le=MAX_INT)]
AmountMinor = Annotated[int, Field(strict=True, ge=0, le=10**15)]  # minor units, see `currency`
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]  # ISO 4217
Instant = Annotated[AwareDatetime, WrapValidator(_instant)]  # any offset in, aware UTC out
CalendarDay = Annotated[  # a day without a time, as 2026-07-01
    date, Field(ge=date(1880, 1, 1), le=date(2200, 1, 1)), BeforeValidator(_day)
]
Zone = Annotated[str, AfterValidator(_known_zone)]  # IANA name
# JSON Schema's own `time` has an offset, which wall-clock time must not have.
WallTime = Annotated[
    time,
    BeforeValidator(_wall_time),
    WithJsonSchema({"type": "string", "pattern": _WALL_TIME, "example": "09:00:00"}),
]
