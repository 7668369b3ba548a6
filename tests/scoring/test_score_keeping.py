"""Standings are loaded as they are, whoever else is at work and whatever a process remembers."""

import asyncio
from datetime import timedelta
from decimal import Decimal

from libs.shared.ids import new_id
from services.scoring import score_keeping
from services.scoring.flags.deciding import override
from services.scoring.presets import DEFAULT_RULE_SET
from services.scoring.purchases import score_closed_deals
from services.scoring.rules_in_force import rules_in_force
from services.scoring.score_keeping import load_alone
from tests.scoring.conftest import NEW_YEAR, Scoring, closed
from tests.scoring.test_ageing_and_rescoring import activated

_WAITING = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event_type = 'Lock' AND query LIKE '%FROM scores%'
"""


async def test_who_waited_for_a_purchase_to_be_committed_knows_it(scoring: Scoring) -> None:
    client = new_id()
    await scoring.hears(closed(client, money=100))
    async with scoring.database.transaction() as tx:
        rules = await rules_in_force(tx)

    async def put_into_vip() -> None:
        until = rules.day_of(NEW_YEAR + timedelta(days=5))
        async with scoring.database.transaction() as tx:
            await override(tx, [client], "champions", until, rules, NEW_YEAR)

    async with scoring.database.transaction() as tx:
        await score_closed_deals([closed(client, ago=2, money=50)], tx)
        waiting = asyncio.create_task(put_into_vip())
        async with asyncio.timeout(20):
            while not await scoring.database.pool.fetchval(_WAITING):
                await asyncio.sleep(0.01)
    await waiting

    score = await scoring.score(client)
    assert (score["segment"], score["frequency"], score["monetary_minor"]) == ("champions", 2, 150)


async def test_rules_that_have_changed_since_are_noticed_in_the_same_transaction(
    scoring: Scoring,
) -> None:
    client = new_id()
    await scoring.hears(closed(client, money=100))
    async with scoring.database.transaction() as tx:
        rules = await rules_in_force(tx)
    rates = {"EUR": Decimal(90), "USD": Decimal("80.5")}
    rule_set = DEFAULT_RULE_SET.model_copy(update={"exchange_rates": rates})
    await activated(scoring.database, rule_set, NEW_YEAR)

    for money, currency in ((3, "USD"), (10, "EUR")):
        score_keeping._last_rules = rules  # what another worker would still go by
        await scoring.hears(closed(client, money=money, currency=currency))

    assert (await scoring.score(client))["monetary_minor"] == 100 + 242 + 900
    await scoring.applies_new_rules(NEW_YEAR)
    assert (await scoring.is_rescored(NEW_YEAR))["mismatches"] == 0


async def test_a_deal_that_two_lanes_tell_of_at_once_counts_once(
    scoring: Scoring, second_worker: Scoring
) -> None:
    """Contacts never says one deal of two clients; if it did, nothing would be lost or doubled."""
    deal, one, other = new_id(), new_id(), new_id()
    await scoring.hears(closed(one), closed(other))

    await asyncio.gather(
        scoring.hears(closed(one, deal=deal)), second_worker.hears(closed(other, deal=deal))
    )

    async with scoring.database.transaction() as tx:
        _, standings, known = await load_alone(tx, [one, other], [deal])
    assert sorted(len(s.days) for s in standings.values()) == [1, 1]
    assert list(known) == [deal]
    bought = [sum(day.purchases for day in s.days.values()) for s in standings.values()]
    assert sorted(bought) == [1, 2]
    assert await scoring.database.pool.fetchval("SELECT count(*) FROM dead_letters") == 0
    assert (await scoring.is_rescored(NEW_YEAR))["mismatches"] == 0
