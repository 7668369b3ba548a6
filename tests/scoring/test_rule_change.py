"""New rules reach everybody once: beside the stream, after a crash, overtaken by newer ones."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from libs.shared.events import Event
from libs.shared.ids import new_id
from services.scoring import rule_change
from services.scoring.presets import DEFAULT_RULE_SET, LIFE_CYCLE, PRESETS, RECENCY_ABC
from services.scoring.rule_change import apply_new_rules
from services.scoring.rules import FixedCuts, RuleSet
from services.scoring.rules_in_force import rules_in_force
from tests.scoring.conftest import NEW_YEAR, Scoring, closed
from tests.scoring.test_ageing_and_rescoring import activated
from tests.scoring.test_purchases import history

END = NEW_YEAR + timedelta(days=700)
STRICT = DEFAULT_RULE_SET.model_copy(
    update={"fixed_cuts": FixedCuts(recency_days=(401, 501, 601, 701))}
)


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty clients make several stretches."""
    monkeypatch.setattr(rule_change, "STRETCH", 7)
    monkeypatch.setattr(rule_change, "COUNTED_STRETCH", 5)


async def aged(scoring: Scoring, events: Sequence[Event] = ()) -> None:
    await scoring.hears(*(events or history()))
    await scoring.ages_until(END)


async def demand_right(scoring: Scoring) -> None:
    report = await scoring.is_rescored(END)
    assert (report["mismatches"], report["history_mismatches"]) == (0, 0)
    said = await scoring.said()
    moves = await scoring.database.pool.fetchval("SELECT sum(seq) FROM scores")
    assert len(said) == len(set(said)) == moves


@pytest.mark.parametrize("name", ["recency_abc", "value_classes", "client_size", "life_cycle"])
async def test_every_preset_reaches_everybody(scoring: Scoring, name: str) -> None:
    await aged(scoring)

    version = await activated(scoring.database, PRESETS[name])
    await scoring.applies_new_rules(END)

    change = await scoring.database.pool.fetchrow("SELECT * FROM rule_changes")
    assert change is not None
    assert (change["version"], change["state"], change["checked"]) == (version, "finished", 40)
    found = await scoring.database.pool.fetch("SELECT DISTINCT segment FROM scores")
    assert {row["segment"] for row in found} <= set(PRESETS[name].treatment())
    await demand_right(scoring)


async def test_who_stays_where_they_are_is_not_written(scoring: Scoring) -> None:
    await aged(scoring)
    before = await scoring.database.pool.fetch("SELECT client_id, xmin FROM scores ORDER BY 1")
    labels = DEFAULT_RULE_SET.model_copy(update={"title": "Другое имя"})

    await activated(scoring.database, labels)
    await scoring.applies_new_rules(END)

    after = await scoring.database.pool.fetch("SELECT client_id, xmin FROM scores ORDER BY 1")
    assert after == before
    await demand_right(scoring)


async def test_a_crash_between_two_stretches_goes_on_where_it_was(scoring: Scoring) -> None:
    await aged(scoring)
    await activated(scoring.database, RECENCY_ABC)
    for _ in range(3):  # the fence and two stretches
        async with scoring.database.transaction() as tx:
            assert await apply_new_rules(tx, END) == 1
    with pytest.raises(ZeroDivisionError):
        async with scoring.database.transaction() as tx:
            await apply_new_rules(tx, END)
            raise ZeroDivisionError
    change = await scoring.database.pool.fetchrow("SELECT * FROM rule_changes")
    assert change is not None
    assert (change["state"], change["checked"]) == ("running", 14)

    await scoring.applies_new_rules(END)

    await demand_right(scoring)


async def test_nothing_is_rated_while_someone_may_still_know_the_rules_before(
    scoring: Scoring, second_worker: Scoring
) -> None:
    await aged(scoring)
    connection = await second_worker.database.pool.acquire()
    old = connection.transaction()
    await old.start()
    await connection.execute("SELECT pg_current_xact_id()")  # as the inbox's position does
    known = await rules_in_force(connection)
    version = await activated(scoring.database, STRICT)

    for _ in range(3):
        async with scoring.database.transaction() as tx:
            await apply_new_rules(tx, END)
    assert await scoring.database.pool.fetchval("SELECT checked FROM rule_changes") == 0
    assert known.version < version
    await old.commit()
    await second_worker.database.pool.release(connection)
    await scoring.applies_new_rules(END)

    assert await scoring.database.pool.fetchval("SELECT checked FROM rule_changes") == 40
    await demand_right(scoring)


async def test_a_newer_version_overtakes_one_that_has_not_reached_everybody(
    scoring: Scoring,
) -> None:
    await aged(scoring)
    first = await activated(scoring.database, LIFE_CYCLE)  # another period: figures are mixed
    for _ in range(3):
        async with scoring.database.transaction() as tx:
            await apply_new_rules(tx, END)
    second = await activated(scoring.database, DEFAULT_RULE_SET)

    await scoring.applies_new_rules(END)

    rows = await scoring.database.pool.fetch("SELECT * FROM rule_changes ORDER BY version")
    assert [(row["version"], row["state"]) for row in rows] == [
        (first, "superseded"),
        (second, "finished"),
    ]
    assert rows[1]["counts_anew"]
    await demand_right(scoring)


async def test_versions_that_follow_while_boundaries_are_written_leave_none_too_late(
    scoring: Scoring,
) -> None:
    await aged(scoring)
    for first_bound in (35, 26, 17):
        cuts = {"fixed_cuts": FixedCuts(recency_days=(first_bound, 61, 91, 181))}
        version = await activated(scoring.database, DEFAULT_RULE_SET.model_copy(update=cuts))
        await rated(scoring, version)

    await scoring.applies_new_rules(END)

    rows = await scoring.database.pool.fetch("SELECT * FROM rule_changes ORDER BY version")
    assert [row["state"] for row in rows] == ["superseded", "superseded", "finished"]
    # Everybody was rated before the next came: the segments' names are known to be the same.
    assert [(row["renames"], row["comes_nearer"]) for row in rows] == [(False, True)] * 3
    await demand_right(scoring)


async def rated(scoring: Scoring, version: int) -> None:
    """Until everybody is rated and boundaries are still to be written."""
    state = "waiting"
    async with asyncio.timeout(20):
        while state != "boundaries":
            async with scoring.database.transaction() as tx:
                await apply_new_rules(tx, END)
            state = await scoring.database.pool.fetchval(
                "SELECT state FROM rule_changes WHERE version = $1", version
            )


@pytest.mark.parametrize("rule_set", [STRICT, LIFE_CYCLE], ids=["stored", "counted"])
async def test_two_workers_and_the_stream_end_right(
    scoring: Scoring, second_worker: Scoring, rule_set: RuleSet
) -> None:
    events = history()
    await scoring.hears(*events[:200])
    await scoring.ages_until(events[199].occurred_at)
    at = events[200].occurred_at

    async def stream() -> None:
        for event in events[200:]:
            await second_worker.hears(event)
            await second_worker.ages_until(event.occurred_at)

    async def change() -> None:
        await activated(scoring.database, rule_set)
        await asyncio.gather(scoring.applies_new_rules(END), second_worker.applies_new_rules(END))

    await asyncio.gather(stream(), change())
    await scoring.ages_until(END)

    assert at < END
    await demand_right(scoring)


async def test_a_boundary_that_moves_away_fires_in_vain_and_one_that_comes_near_in_time(
    scoring: Scoring,
) -> None:
    client = new_id()
    await scoring.hears(closed(client))
    due = (await scoring.score(client))["due_at"]

    await applied(scoring, (41, 61, 91, 181), NEW_YEAR)
    assert (await scoring.score(client))["due_at"] == due  # nothing is written for it
    assert (await scoring.is_rescored(NEW_YEAR))["mismatches"] == 0
    await scoring.ages_until(due)
    aged = await scoring.score(client)
    assert (aged["due_at"], aged["recency_score"]) == (due + timedelta(days=10), 5)

    await applied(scoring, (35, 61, 91, 181), due)
    nearer = await scoring.score(client)
    assert (nearer["due_at"], nearer["recency_score"]) == (due + timedelta(days=4), 5)


async def applied(
    scoring: Scoring, recency: tuple[float, float, float, float], now: datetime
) -> None:
    cuts = {"fixed_cuts": FixedCuts(recency_days=recency)}
    await activated(scoring.database, DEFAULT_RULE_SET.model_copy(update=cuts), now)
    await scoring.applies_new_rules(now)
