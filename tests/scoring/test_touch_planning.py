"""When a client's next touch is due, what is said of it, and what becomes of it."""

import asyncio
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from libs.shared.events import (
    ClientArchived,
    ClientCard,
    ClientChanged,
    ClientCreated,
    ClientRestored,
    InteractionHeld,
    InteractionRecorded,
    Promised,
)
from libs.shared.ids import new_id
from services.scoring.activation import activate
from services.scoring.habits import HabitRule, habit_of
from services.scoring.presets import DEFAULT_RULE_SET, PRESETS
from services.scoring.rules_in_force import draft, prepared
from services.scoring.touch_sla import TouchSla, touch_due_on, working_days
from tests.scoring.conftest import Scoring, closed, reversed_

MOSCOW = ZoneInfo("Europe/Moscow")
MONDAY = datetime(2025, 3, 3, 9, tzinfo=UTC)  # noon in Moscow
SAME_DAY = PRESETS["recency_abc"]


def spoke(
    client: UUID,
    at: datetime,
    *,
    by: UUID | None = None,
    kind: str = "call",
    promises: list[Promised] | None = None,
) -> InteractionRecorded:
    return InteractionRecorded(
        interaction_id=new_id(),
        client_id=client,
        kind=kind,
        direction="outgoing",
        manager_id=by,
        happened_at=at,
        promises=promises or [],
        occurred_at=at,
    )


def card(client: UUID, owner: UUID | None, version: int = 1) -> ClientCreated | ClientChanged:
    kept = ClientCard(kind="person", full_name="Анна", status="active", owner_id=owner)
    if version == 1:
        return ClientCreated(client_id=client, version=1, card=kept, occurred_at=MONDAY)
    return ClientChanged(
        client_id=client, version=version, card=kept, changed=["owner_id"], occurred_at=MONDAY
    )


async def put_in_force(scoring: Scoring, rule_set: Any, now: datetime) -> None:
    async with scoring.database.session() as session:
        await prepared(session)
        row = await draft(session, rule_set, by="test", now=now)
        await activate(session, row.version, by="test", now=now)
    await scoring.applies_new_rules(now)


async def plan_of(scoring: Scoring, client: UUID) -> asyncpg.Record:
    row = await scoring.database.pool.fetchrow(
        "SELECT * FROM touch_plans WHERE client_id = $1", client
    )
    assert row is not None
    return row


async def said(scoring: Scoring, client: UUID) -> list[tuple[str, int]]:
    rows = await scoring.database.pool.fetch(
        "SELECT type, convert_from(data, 'UTF8')::jsonb AS data FROM outbox"
        " WHERE topic = 'touches' AND key = $1 ORDER BY id",
        str(client),
    )
    return [(row["type"].split(".")[2], row["data"]["touch_no"]) for row in rows]


async def outcomes(scoring: Scoring, client: UUID) -> list[str]:
    """What became of a client's touches; each is said once, as it is kept."""
    kept = await scoring.database.pool.fetch(
        "SELECT touch_no, manager_id::text, outcome FROM touch_log WHERE client_id = $1"
        " ORDER BY touch_no",
        client,
    )
    told = await scoring.database.pool.fetch(
        "SELECT (data ->> 'touch_no')::int AS touch_no, data ->> 'manager_id' AS manager_id,"
        " data ->> 'outcome' AS outcome FROM (SELECT id, convert_from(data, 'UTF8')::jsonb AS data"
        " FROM outbox WHERE type = 'baza.touch.ended.v1' AND key = $1) AS ended ORDER BY id",
        str(client),
    )
    assert list(map(tuple, told)) == list(map(tuple, kept))
    return [row["outcome"] for row in kept]


@pytest.mark.parametrize("rule_set", [DEFAULT_RULE_SET, SAME_DAY], ids=["default", "recency_abc"])
async def test_plans_in_sql_are_what_the_rule_says(scoring: Scoring, rule_set: Any) -> None:
    if rule_set is not DEFAULT_RULE_SET:
        await put_in_force(scoring, rule_set, MONDAY)
    bought = {new_id(): number * 7 % 190 for number in range(120)}
    touched = {client: ago * 3 % 40 for client, ago in bought.items() if ago % 2}
    await scoring.hears(*(closed(client, ago=ago, at=MONDAY) for client, ago in bought.items()))
    await scoring.hears(*(spoke(c, MONDAY - timedelta(days=ago)) for c, ago in touched.items()))
    await scoring.plans(MONDAY)

    treatment = rule_set.treatment()
    days = working_days(rule_set.calendar, [rule.sla for rule in treatment.values()], MONDAY.date())
    plans = await scoring.database.pool.fetch("SELECT * FROM touch_plans")
    assert len(plans) == len(bought)
    for plan in plans:
        client = plan["client_id"]
        due = touch_due_on(
            treatment[plan["segment"]].sla,
            last_purchase=(MONDAY - timedelta(days=bought[client])).date(),
            last_touch=(MONDAY - timedelta(days=touched[client])).date()
            if client in touched
            else None,
            days=days,
        )
        assert plan["due_on"] == due, (bought[client], touched.get(client))
        if due is not None:
            assert (plan["opens_at"], plan["closes_at"]) == days.spans[days.days.index(due)]


@pytest.mark.parametrize(
    "rule",
    [
        HabitRule(),
        HabitRule(least_intervals=4, least_seasons=4, season_pause_days=30, season_strictness=2),
    ],
    ids=["usual", "other"],
)
async def test_plans_go_by_habits_as_the_rule_does(scoring: Scoring, rule: HabitRule) -> None:
    """Buyers at steady, wavering and wild intervals, touched early, in time and never."""
    sla = TouchSla(every=60, before_expected=4)
    every = tuple(
        segment.model_copy(update={"touch": sla}) for segment in DEFAULT_RULE_SET.segments
    )
    changes = {"segments": every, "habits": rule}
    await put_in_force(scoring, DEFAULT_RULE_SET.model_copy(update=changes), MONDAY)
    bought: dict[UUID, list[date]] = {}
    touched: dict[UUID, date] = {}
    for number in range(60):
        client = new_id()
        gaps = [10 + number % 25 + (number * step) % (1 + number // 6) for step in range(5)]
        if number % 5 == 0:
            gaps = [2, 60 + number, 3, 40, 1]  # no habit, however often they buy
        ago = number % 30 + 1
        days = [ago + sum(gaps[:place]) for place in range(1 + number % 6)]
        if number % 5 == 1:  # three or four seasons, most of them at distances that are alike
            starts = [ago + year * (150 + number) for year in range(3 + number % 2)]
            starts[-1] += number * (number % 4)
            days = [start + day for start in starts for day in range(0, 1 + number % 20, 7)]
        await scoring.hears(*(closed(client, ago=each, at=MONDAY) for each in days))
        bought[client] = sorted(MONDAY.date() - timedelta(days=each) for each in days)
        if number % 3:
            at = MONDAY - timedelta(days=number % 20)
            await scoring.hears(spoke(client, at))
            touched[client] = at.date()
    await scoring.plans(MONDAY)

    days_known = working_days(DEFAULT_RULE_SET.calendar, [sla], MONDAY.date())
    kinds: Counter[str] = Counter()
    for client, purchase_days in bought.items():
        habit = habit_of(purchase_days, rule)
        due = touch_due_on(
            sla,
            last_purchase=purchase_days[-1],
            last_touch=touched.get(client),
            days=days_known,
            expected_on=habit.next_on if habit else None,
        )
        kinds[habit.kind if habit else "wild" if len(purchase_days) > 3 else "short"] += 1
        assert (await plan_of(scoring, client))["due_on"] == due, (purchase_days, touched)
    assert set(kinds) == {"interval", "season", "wild", "short"}
    assert min(kinds.values()) > 2, kinds


async def test_a_touch_is_due_with_the_working_day_and_overdue_after_it(scoring: Scoring) -> None:
    await put_in_force(scoring, SAME_DAY, MONDAY)
    saturday = datetime(2025, 3, 8, 12, tzinfo=UTC)
    client = new_id()
    await scoring.hears(closed(client, at=saturday))

    await scoring.turns_touches(saturday + timedelta(hours=5))
    assert (await plan_of(scoring, client))["due_on"] == date(2025, 3, 10)
    assert await said(scoring, client) == []

    opening = datetime(2025, 3, 10, 9, tzinfo=MOSCOW)
    await scoring.turns_touches(opening - timedelta(microseconds=1))
    assert await said(scoring, client) == []
    await scoring.turns_touches(opening)
    assert await said(scoring, client) == [("due", 1)]

    await scoring.turns_touches(datetime(2025, 3, 10, 18, tzinfo=MOSCOW))
    await scoring.turns_touches(datetime(2025, 3, 11, 18, tzinfo=MOSCOW))
    assert await said(scoring, client) == [("due", 1), ("overdue", 1)]
    assert (await plan_of(scoring, client))["due_at"] is None


async def test_who_is_late_from_the_beginning_is_told_of_once(scoring: Scoring) -> None:
    client = new_id()
    await scoring.hears(closed(client, ago=300, at=MONDAY))
    await scoring.turns_touches(MONDAY)
    await scoring.turns_touches(MONDAY + timedelta(days=30))
    assert await said(scoring, client) == [("overdue", 1)]


async def test_a_touch_in_time_and_one_too_late_are_told_apart(scoring: Scoring) -> None:
    await put_in_force(scoring, SAME_DAY, MONDAY)
    in_time, too_late, not_needed = new_id(), new_id(), new_id()
    await scoring.hears(*(closed(c, at=MONDAY) for c in (in_time, too_late, not_needed)))
    await scoring.turns_touches(MONDAY)
    await scoring.hears(spoke(in_time, MONDAY + timedelta(hours=2), by=new_id()))
    await scoring.turns_touches(MONDAY + timedelta(hours=9))
    await scoring.hears(spoke(too_late, MONDAY + timedelta(days=1)))
    await scoring.hears(closed(not_needed, at=MONDAY + timedelta(days=1)))
    await scoring.plans(MONDAY + timedelta(days=1))

    assert await outcomes(scoring, in_time) == ["kept"]
    assert await said(scoring, in_time) == [("due", 1), ("ended", 1)]
    assert await outcomes(scoring, too_late) == ["late"]
    assert await outcomes(scoring, not_needed) == ["void"]
    # Bought again, so there is another touch to make.
    assert (await plan_of(scoring, not_needed))["touch_no"] == 2


async def test_what_does_not_move_the_day_is_the_same_touch(scoring: Scoring) -> None:
    await put_in_force(scoring, SAME_DAY, MONDAY)
    client = new_id()
    await scoring.hears(closed(client, at=MONDAY))
    await scoring.turns_touches(MONDAY)
    await scoring.hears(closed(client, at=MONDAY + timedelta(hours=1), money=5_000_000))
    await scoring.turns_touches(MONDAY + timedelta(hours=1))

    plan = await plan_of(scoring, client)
    assert (plan["state"], plan["touch_no"], plan["value_minor"]) == ("due", 1, 5_100_000)
    assert await said(scoring, client) == [("due", 1)]


async def test_an_older_touch_heard_late_changes_nothing(scoring: Scoring) -> None:
    client, manager = new_id(), new_id()
    await scoring.hears(closed(client, ago=5, at=MONDAY))
    await scoring.hears(
        spoke(client, MONDAY, promises=[Promised(text="прислать счёт", due_on=date(2025, 3, 5))])
    )
    await scoring.plans(MONDAY)
    before = await plan_of(scoring, client)
    old = Promised(text="перезвонить", due_on=date(2025, 3, 1))
    await scoring.hears(spoke(client, MONDAY - timedelta(days=3), by=manager, promises=[old]))
    await scoring.plans(MONDAY)

    assert await plan_of(scoring, client) == before
    promised = await scoring.database.pool.fetchval("SELECT promised FROM touches")
    assert promised == "прислать счёт"


async def test_a_note_is_no_touch_and_a_held_meeting_is(scoring: Scoring) -> None:
    client = new_id()
    await scoring.hears(closed(client, at=MONDAY))
    await scoring.plans(MONDAY)
    first = (await plan_of(scoring, client))["due_on"]
    later = MONDAY + timedelta(days=3)
    await scoring.hears(spoke(client, later, kind="note"))
    assert (await plan_of(scoring, client))["due_on"] == first
    held = InteractionHeld(
        interaction_id=new_id(),
        client_id=client,
        version=2,
        kind="meeting",
        held_at=later,
        occurred_at=later,
    )
    await scoring.hears(held)
    assert (await plan_of(scoring, client))["due_on"] > first


async def test_a_client_goes_with_the_card_from_owner_to_owner_and_away(scoring: Scoring) -> None:
    client, first, second = new_id(), new_id(), new_id()
    await scoring.hears(closed(client, ago=300, at=MONDAY), card(client, second, version=3))
    await scoring.hears(card(client, first))  # late: an older card
    await scoring.turns_touches(MONDAY)
    plan = await plan_of(scoring, client)
    assert (plan["owner_id"], plan["state"]) == (second, "overdue")

    away = ClientArchived(client_id=client, version=4, reason="ушёл", occurred_at=MONDAY)
    await scoring.hears(away)
    await scoring.turns_touches(MONDAY)
    assert (await plan_of(scoring, client))["state"] == "none"

    await scoring.hears(ClientRestored(client_id=client, version=5, occurred_at=MONDAY))
    await scoring.turns_touches(MONDAY)
    plan = await plan_of(scoring, client)
    assert (plan["state"], plan["touch_no"], plan["owner_id"]) == ("overdue", 2, second)


async def test_who_has_no_purchase_left_is_not_called(scoring: Scoring) -> None:
    client = new_id()
    deal = closed(client, ago=300, at=MONDAY)
    await scoring.hears(deal)
    await scoring.turns_touches(MONDAY)
    await scoring.hears(reversed_(deal, at=MONDAY))
    await scoring.turns_touches(MONDAY)
    assert (await plan_of(scoring, client))["state"] == "none"
    assert await outcomes(scoring, client) == ["void"]


async def test_other_rules_plan_everybody_anew(scoring: Scoring) -> None:
    clients = [new_id() for _ in range(5)]
    await scoring.hears(*(closed(client, ago=3, at=MONDAY) for client in clients))
    await scoring.plans(MONDAY)
    before = {(await plan_of(scoring, client))["due_on"] for client in clients}
    longer = [
        segment.model_copy(update={"touch_every_days": 100, "touch": None, "priority": 7})
        for segment in DEFAULT_RULE_SET.segments
    ]
    await put_in_force(
        scoring, DEFAULT_RULE_SET.model_copy(update={"segments": tuple(longer)}), MONDAY
    )
    await scoring.plans(MONDAY)

    for client in clients:
        plan = await plan_of(scoring, client)
        assert plan["due_on"] not in before
        assert plan["priority"] == 7


async def test_two_planners_at_once_end_with_what_is_true(
    scoring: Scoring, second_worker: Scoring
) -> None:
    clients = [new_id() for _ in range(40)]
    for ago in (200, 100, 50, 3):
        await scoring.hears(*(closed(client, ago=ago, at=MONDAY) for client in clients))
        await asyncio.gather(scoring.plans(MONDAY), second_worker.plans(MONDAY))
    due = {(await plan_of(scoring, client))["due_on"] for client in clients}
    alone = new_id()
    await scoring.hears(*(closed(alone, ago=ago, at=MONDAY) for ago in (200, 100, 50, 3)))
    await scoring.plans(MONDAY)
    assert due == {(await plan_of(scoring, alone))["due_on"]}
