"""A table of cases as a supervisor would ask them: who is there, and when does the lead move on?

Each line is a calendar, a moment of the wall clock, and the answer. Claim windows are 15 minutes of
the company's working time, as shipped.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from libs.shared.calendars import Calendar
from services.routing.choosing.presence import NAMES, Facts, presence
from services.routing.claim_window import end_of_window, in_working_time
from services.routing.policy import ClaimPolicy
from tests.routing.conftest import Routing

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday")


def week(*hours: str, days: tuple[str, ...] = WEEKDAYS) -> dict[str, Any]:
    pairs = [dict(zip(("opens_at", "closes_at"), each.split("-"), strict=True)) for each in hours]
    return {day: pairs for day in days}


OFFICE = {
    "zone": "Europe/Moscow",
    "week": week("09:00-13:00", "14:00-18:00"),
    "holiday_country": "RU",
}
# По указу суббота 14 ноября 2026 — рабочая, а понедельник 16-го — выходной.
DECREE = OFFICE | {
    "special_days": {
        "2026-11-14": [{"opens_at": "09:00", "closes_at": "18:00"}],
        "2026-11-16": None,
    }
}
BERLIN = {"zone": "Europe/Berlin", "week": week("02:30-06:00", days=(*WEEKDAYS, "sunday"))}
NIGHT = {"zone": "Europe/Moscow", "week": week("22:00-06:00")}
URALS = {"zone": "Asia/Yekaterinburg", "week": week("09:00-18:00")}
CALENDARS = {
    "контора": OFFICE,
    "указ": DECREE,
    "Берлин": BERLIN,
    "ночная": NIGHT,
    "Екатеринбург": URALS,
}


def at(wall: str, zone: str) -> datetime:
    return datetime.fromisoformat(wall).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@pytest.mark.parametrize(
    ("calendar", "wall", "zone", "there"),
    [
        pytest.param(
            "контора", "2026-11-06 17:59", "Europe/Moscow", "here", id="пятница, последняя минута"
        ),
        pytest.param(
            "контора", "2026-11-06 18:00", "Europe/Moscow", "off_shift", id="пятница вечером"
        ),
        pytest.param("контора", "2026-11-07 12:00", "Europe/Moscow", "off_shift", id="суббота"),
        pytest.param("контора", "2026-11-05 13:30", "Europe/Moscow", "off_shift", id="обед"),
        pytest.param("контора", "2026-11-05 14:00", "Europe/Moscow", "here", id="конец обеда"),
        pytest.param(
            "контора",
            "2026-11-04 12:00",
            "Europe/Moscow",
            "off_shift",
            id="День народного единства",
        ),
        pytest.param(
            "указ", "2026-11-14 12:00", "Europe/Moscow", "here", id="суббота рабочая по указу"
        ),
        pytest.param(
            "указ",
            "2026-11-16 12:00",
            "Europe/Moscow",
            "off_shift",
            id="понедельник выходной по указу",
        ),
        pytest.param(
            "ночная", "2026-11-05 23:00", "Europe/Moscow", "here", id="ночная смена до полуночи"
        ),
        pytest.param(
            "ночная", "2026-11-06 03:00", "Europe/Moscow", "here", id="ночная смена после полуночи"
        ),
        pytest.param(
            "ночная", "2026-11-06 06:00", "Europe/Moscow", "off_shift", id="ночная смена кончилась"
        ),
        pytest.param(
            "ночная", "2026-11-07 03:00", "Europe/Moscow", "here", id="ночь с пятницы на субботу"
        ),
        pytest.param(
            "Екатеринбург",
            "2026-11-05 15:30",
            "Europe/Istanbul",
            "here",
            id="клиент в Стамбуле, 17:30 на Урале",
        ),
        pytest.param(
            "Екатеринбург",
            "2026-11-05 16:30",
            "Europe/Istanbul",
            "off_shift",
            id="клиент в Стамбуле, 18:30 на Урале",
        ),
        pytest.param(
            "Екатеринбург",
            "2026-11-05 07:30",
            "Europe/Istanbul",
            "here",
            id="в Стамбуле рано, на Урале 9:30",
        ),
        pytest.param(
            "Берлин",
            "2026-03-29 03:00",
            "Europe/Berlin",
            "off_shift",
            id="перевод часов: 2:30 не бывает",
        ),
        pytest.param(
            "Берлин",
            "2026-03-29 03:30",
            "Europe/Berlin",
            "here",
            id="перевод часов: смена началась в 3:30 вместо 2:30",
        ),
        pytest.param(
            "Берлин",
            "2026-10-25 06:00",
            "Europe/Berlin",
            "off_shift",
            id="зимнее время: кончилась в 6 по местным часам",
        ),
    ],
)
def test_who_is_there(calendar: str, wall: str, zone: str, there: str) -> None:
    facts = Facts(calendar=Calendar.model_validate(CALENDARS[calendar]))
    assert NAMES[presence(facts, at(wall, zone)).code] == there


@pytest.mark.parametrize(
    ("calendar", "wall", "moves"),
    [
        pytest.param("контора", "2026-11-05 10:00", "2026-11-05 10:15", id="среди дня"),
        pytest.param(
            "контора",
            "2026-11-06 17:50",
            "2026-11-09 09:05",
            id="пятница вечером: остаток в понедельник",
        ),
        pytest.param("контора", "2026-11-05 12:55", "2026-11-05 14:10", id="через обед"),
        pytest.param("контора", "2026-11-05 13:20", "2026-11-05 14:15", id="пришла в обед"),
        pytest.param("контора", "2026-11-03 17:55", "2026-11-05 09:10", id="через праздник"),
        pytest.param("указ", "2026-11-13 17:50", "2026-11-14 09:05", id="рабочая суббота по указу"),
        pytest.param("указ", "2026-11-14 17:50", "2026-11-17 09:05", id="перенесённый выходной"),
        pytest.param("ночная", "2026-11-05 23:50", "2026-11-06 00:05", id="через полночь"),
        pytest.param("ночная", "2026-11-06 05:50", "2026-11-06 22:05", id="конец ночной смены"),
    ],
)
def test_when_an_unclaimed_lead_moves_on(calendar: str, wall: str, moves: str) -> None:
    policy = ClaimPolicy.model_validate({"calendar": CALENDARS[calendar]})
    assert end_of_window(policy, at(wall, "Europe/Moscow")) == at(moves, "Europe/Moscow")


def test_without_a_calendar_the_clocks_run_around_the_clock() -> None:
    moment = at("2026-11-07 03:00", "Europe/Moscow")
    assert in_working_time(ClaimPolicy(), moment, 3) == moment + timedelta(minutes=3)


async def test_a_manager_in_yekaterinburg_gets_an_istanbul_lead_in_their_own_hours(
    routing: Routing,
) -> None:
    ural = await routing.manager(on_shift=False, calendar=URALS, languages=["ru", "tr"])
    for wall, state in (("2026-11-05 15:30", "offered"), ("2026-11-05 16:30", "queued")):
        moment = at(wall, "Europe/Istanbul")
        (lead,) = await routing.comes(at=moment, phone_country="TR", language="tr")
        row = await routing.lead(lead)
        assert row["state"] == state
        if state == "offered":
            assert row["manager_id"] == ural


async def test_the_shift_over_midnight_hands_over_what_is_unclaimed(routing: Routing) -> None:
    night = await routing.manager(on_shift=False, calendar=NIGHT)
    ends = at("2026-11-06 06:00", "Europe/Moscow")
    await routing.database.pool.execute(
        "UPDATE managers SET due_at = $1", ends - timedelta(hours=7)
    )
    await routing.attends(ends - timedelta(hours=7))
    (lead,) = await routing.comes(at=ends - timedelta(minutes=5))
    assert (await routing.lead(lead))["manager_id"] == night
    assert await routing.attends(ends) == 1
    await routing.offers(ends)
    assert (await routing.lead(lead))["state"] == "queued"
