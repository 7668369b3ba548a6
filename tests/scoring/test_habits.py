"""A habit is an interval that a client keeps to."""

from datetime import UTC, date, datetime, timedelta

import pytest

from libs.shared.ids import new_id
from services.scoring.habits import Habit, habit_of, usual_interval
from tests.apps import App
from tests.scoring.conftest import Scoring, closed


@pytest.mark.parametrize(
    ("ago", "interval"),
    [
        ([90, 60, 30, 0], 30),
        ([95, 60, 32, 0], 32),
        ([90, 60, 30], None),  # two intervals are no habit yet
        ([300, 290, 100, 95, 0], None),
        ([400, 370, 340, 310, 30, 0], 30),  # one long absence does not break it
        ([], None),
    ],
)
def test_the_usual_interval_is_the_median_of_intervals_that_are_alike(
    ago: list[int], interval: int | None
) -> None:
    today = date(2025, 6, 1)
    assert usual_interval([today - timedelta(days) for days in ago]) == interval


@pytest.mark.parametrize(
    ("bought", "every", "next_on"),
    [
        # Each November, some days of it: the next one is expected when it begins.
        (["2021-11-03", "2021-11-20", "2022-11-01", "2022-11-02", "2023-11-05"], 366, "2024-11-05"),
        # Twice a year, in spring and in autumn.
        (["2022-03-01", "2022-04-02", "2022-09-01", "2023-03-03", "2023-04-20"], 184, "2023-09-03"),
        # Two seasons are none yet; neither are three at random.
        (["2021-11-03", "2021-11-20", "2022-11-01", "2022-11-02"], None, None),
        (["2021-11-03", "2021-11-20", "2022-02-01", "2022-02-02", "2023-11-05"], None, None),
    ],
)
def test_seasons_come_again(bought: list[str], every: int | None, next_on: str | None) -> None:
    habit = habit_of([date.fromisoformat(day) for day in bought])
    expected = Habit("season", every, date.fromisoformat(next_on)) if every and next_on else None
    assert habit == expected


def test_an_interval_comes_before_a_season() -> None:
    today = date(2025, 6, 1)
    days = [today - timedelta(ago) for ago in (900, 600, 300, 0)]
    assert habit_of(days) == Habit("interval", 300, today + timedelta(300))


async def test_the_widget_tells_segment_touch_and_habit_in_one_call(
    api: App, scoring: Scoring
) -> None:
    client, now = new_id(), datetime.now(UTC)
    await scoring.hears(*(closed(client, ago=ago, at=now) for ago in (62, 42, 22, 2)))
    bare = (await api.call("GET", f"/v1/clients/{client}/score", role="manager")).json()
    await scoring.plans(now)

    widget = (await api.call("GET", f"/v1/clients/{client}/score", role="manager")).json()

    assert bare["touch_state"] is None
    assert widget["touch_state"] == "waiting"
    assert widget["touch_due_on"] > now.date().isoformat()
    assert widget["usual_interval_days"] == 20
    assert widget["season_days"] is None
    last = date.fromisoformat(widget["last_purchase_day"])
    assert widget["next_usual_on"] == (last + timedelta(20)).isoformat()
