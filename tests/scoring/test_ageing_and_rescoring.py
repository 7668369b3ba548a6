"""Time passes by due rows, rules change beside the stream, and a rescoring finds what is wrong."""

import asyncio
from datetime import datetime, timedelta

import pytest

from libs.shared.database import Database
from libs.shared.ids import new_id
from services.scoring.activation import BaseIsEmpty, RuleSetNotDraft, activate
from services.scoring.ageing import age_due_clients
from services.scoring.presets import DEFAULT_RULE_SET
from services.scoring.rules import CurrencyWithoutRate, FixedCuts, RuleSet
from services.scoring.rules_in_force import draft, prepared
from tests.scoring.conftest import NEW_YEAR, Scoring, closed
from tests.scoring.test_purchases import history

END = NEW_YEAR + timedelta(days=700)


async def activated(database: Database, rule_set: RuleSet, now: datetime = END) -> int:
    async with database.session() as session:
        await prepared(session)
        version = (await draft(session, rule_set, by="ann", now=NEW_YEAR)).version
    async with database.session() as session:
        await activate(session, version, by="ann", now=now)
    return version


async def test_a_client_moves_at_the_boundary_and_not_before(scoring: Scoring) -> None:
    client = new_id()
    await scoring.hears(closed(client))
    await scoring.ages_until((await scoring.score(client))["due_at"])  # 31 days: rated lower
    boundary = (await scoring.score(client))["due_at"]  # 61 days: another segment

    await scoring.ages_until(boundary - timedelta(microseconds=1))
    assert (await scoring.score(client))["segment"] == "new_customers"
    await scoring.ages_until(boundary)

    moved = await scoring.score(client)
    assert (moved["segment"], moved["seq"]) == ("about_to_sleep", 2)
    instant = await scoring.database.pool.fetchval(
        "SELECT changed_at FROM segment_history WHERE seq = 2"
    )
    assert instant == boundary


async def test_late_timers_write_the_same_history_as_punctual_ones(
    scoring: Scoring, fresh_scoring: Scoring
) -> None:
    events = history()
    for event in events:
        await scoring.ages_until(event.occurred_at)
        await scoring.hears(event)
    await fresh_scoring.hears(*events)

    await scoring.ages_until(END)
    await fresh_scoring.ages_until(END)

    assert await scoring.everything() == await fresh_scoring.everything()


async def test_two_workers_age_each_client_once(scoring: Scoring, second_worker: Scoring) -> None:
    await scoring.hears(*history())

    await asyncio.gather(scoring.ages_until(END), second_worker.ages_until(END))

    said = await scoring.said()
    assert len(said) == len(set(said))
    report = await scoring.is_rescored(END)
    assert (report["mismatches"], report["history_mismatches"]) == (0, 0)


async def test_a_crash_while_ageing_leaves_the_rows_due(scoring: Scoring) -> None:
    await scoring.hears(*history())
    before = await scoring.everything()

    with pytest.raises(ZeroDivisionError):
        async with scoring.database.transaction() as tx:
            assert await age_due_clients(tx, END) > 0
            raise ZeroDivisionError

    assert await scoring.everything() == before


async def test_a_rescoring_finds_and_mends_what_is_wrong(scoring: Scoring) -> None:
    await scoring.hears(*history())
    await scoring.ages_until(END)
    clean = await scoring.everything()
    assert (await scoring.is_rescored(END))["mismatches"] == 0
    await scoring.database.pool.execute(
        "UPDATE scores SET monetary_minor = monetary_minor + 1 WHERE client_id IN"
        " (SELECT client_id FROM scores LIMIT 3)"
    )
    await scoring.database.pool.execute(
        "DELETE FROM segment_history WHERE (client_id, seq) IN"
        " (SELECT client_id, seq FROM segment_history WHERE seq = 1 LIMIT 2)"
    )

    report = await scoring.is_rescored(END + timedelta(seconds=1))

    assert (report["mismatches"], report["history_mismatches"]) == (3, 2)
    mended = (await scoring.everything())["scores"]
    assert [row["monetary_minor"] for row in mended] == [
        row["monetary_minor"] for row in clean["scores"]
    ]
    assert (await scoring.is_rescored(END + timedelta(seconds=2)))["mismatches"] == 0


async def test_a_client_with_purchases_and_no_score_is_found(scoring: Scoring) -> None:
    client = new_id()
    await scoring.hears(closed(client))
    await scoring.database.pool.execute("DELETE FROM scores")
    await scoring.database.pool.execute("DELETE FROM segment_history")

    report = await scoring.is_rescored(NEW_YEAR)

    assert (report["checked"], report["mismatches"]) == (1, 1)
    assert (await scoring.score(client))["segment"] == "new_customers"


async def test_new_rules_reach_everybody_and_say_who_moved(scoring: Scoring) -> None:
    await scoring.hears(*history())
    await scoring.ages_until(END)
    strict = DEFAULT_RULE_SET.model_copy(
        update={"fixed_cuts": FixedCuts(recency_days=(401, 501, 601, 701))}
    )

    version = await activated(scoring.database, strict)
    await scoring.applies_new_rules(END)

    reasons = await scoring.database.pool.fetch(
        "SELECT reason, rule_version FROM segment_history WHERE reason = 'rules'"
    )
    assert reasons
    assert {row["rule_version"] for row in reasons} == {version}
    report = await scoring.is_rescored(END)
    assert (report["mismatches"], report["history_mismatches"]) == (0, 0)


async def test_quintiles_are_taken_from_the_base_and_stored(scoring: Scoring) -> None:
    await scoring.hears(*history())
    await scoring.ages_until(END)
    quintiles = DEFAULT_RULE_SET.model_copy(update={"method": "quintile", "period_days": 900})

    version = await activated(scoring.database, quintiles)
    await scoring.applies_new_rules(END)

    cuts = await scoring.database.pool.fetchval(
        "SELECT cuts FROM rule_sets WHERE version = $1", version
    )
    assert all(sorted(bounds) == bounds and len(bounds) == 4 for bounds in cuts.values())
    counted = await scoring.database.pool.fetch(
        "SELECT recency_score, count(*) AS clients FROM scores GROUP BY 1"
    )
    assert {row["recency_score"] for row in counted} == {1, 2, 3, 4, 5}
    assert (await scoring.is_rescored(END))["mismatches"] == 0


async def test_quintiles_of_nothing_and_missing_rates_are_refused(scoring: Scoring) -> None:
    with pytest.raises(BaseIsEmpty):
        await activated(
            scoring.database, DEFAULT_RULE_SET.model_copy(update={"method": "quintile"})
        )
    await scoring.hears(closed(new_id()))
    with pytest.raises(CurrencyWithoutRate):
        await activated(
            scoring.database, DEFAULT_RULE_SET.model_copy(update={"reporting_currency": "USD"})
        )


async def test_a_version_is_activated_once(scoring: Scoring) -> None:
    version = await activated(scoring.database, DEFAULT_RULE_SET)

    async with scoring.database.session() as session:
        with pytest.raises(RuleSetNotDraft):
            await activate(session, version, by="ann", now=END)
