"""The past is what the purchases say, less what was returned, under the rules of the time."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from libs.shared.events import DealClosed, DealReversed
from libs.shared.ids import new_id
from services.scoring.activation import activate
from services.scoring.past import migration, standing_at
from services.scoring.presets import DEFAULT_RULE_SET, LIFE_CYCLE, RECENCY_ABC
from services.scoring.rfm import Cuts
from services.scoring.rules import Rules, RuleSet
from services.scoring.rules_in_force import draft, prepared
from services.scoring.standing import Standing
from tests.apps import App, problem
from tests.scoring.conftest import NEW_YEAR, Scoring, closed, reversed_
from tests.scoring.test_purchases import history


def on(day: int) -> datetime:
    return NEW_YEAR + timedelta(days=day)


async def in_force_from(scoring: Scoring, rule_set: RuleSet, at: datetime) -> Rules:
    async with scoring.database.session() as session:
        await prepared(session)
        version = (await draft(session, rule_set, by="ann", now=at)).version
    async with scoring.database.session() as session:
        await activate(session, version, by="ann", now=at)
    return Rules.of(version, rule_set, Cuts(**rule_set.fixed_cuts.model_dump()))


def folded(
    deals: list[DealClosed], returns: list[DealReversed], rules: Rules, moment: datetime
) -> dict[UUID, Standing]:
    """Everybody at a moment, told by the standing's own arithmetic from what had happened."""
    standings: dict[UUID, Standing] = {}
    bought = {deal.deal_id: deal for deal in deals if deal.closed_at <= moment}
    for deal in bought.values():
        standing = standings.setdefault(deal.client_id, Standing(deal.client_id))
        standing.buy(rules.day_of(deal.closed_at), deal.amount_minor, at=moment, rules=rules)
    for back in returns:
        if back.reversed_at <= moment and (again := bought.get(back.deal_id)):
            standings[back.client_id].give_back(
                rules.day_of(again.closed_at),
                back.amount_minor,
                is_full=back.is_full,
                at=moment,
                rules=rules,
            )
    return {client: standing for client, standing in standings.items() if standing.segment}


@pytest.mark.parametrize("rule_set", [DEFAULT_RULE_SET, LIFE_CYCLE], ids=["ten", "life cycle"])
async def test_every_client_at_every_moment_is_a_fold_of_what_had_happened(
    scoring: Scoring, rule_set: RuleSet
) -> None:
    deals = history()
    returns = [
        reversed_(deal, at=deal.occurred_at + timedelta(days=40), money=None if n % 2 else 5)
        for n, deal in enumerate(deals[::4])
        if deal.amount_minor > 5
    ]
    await scoring.hears(*deals)
    await scoring.hears(*sorted(returns, key=lambda back: back.occurred_at))
    rules = await in_force_from(scoring, rule_set, NEW_YEAR - timedelta(days=400))

    for day in (-20, 0, 100, 333, 600, 1000):
        moment = on(day)
        expected = folded(deals, returns, rules, moment)
        for client in {deal.client_id for deal in deals}:
            async with scoring.database.pool.acquire() as connection:
                then = await standing_at(connection, client, moment)
            told = expected.get(client)
            assert (then is None) == (told is None)
            if then and told:
                assert (then.figures, then.scores) == (told.figures, told.scores)
                assert (then.segment, then.last_day) == (told.segment, told.last_day)


async def test_the_rules_of_the_time_are_those_in_force_then(scoring: Scoring) -> None:
    client = new_id()
    await scoring.hears(closed(client))
    abc = await in_force_from(scoring, RECENCY_ABC, on(50))

    async with scoring.database.pool.acquire() as connection:
        before = await standing_at(connection, client, on(50) - timedelta(microseconds=1))
        after = await standing_at(connection, client, on(50))
        never = await standing_at(connection, client, on(-1))

    assert before is not None
    assert after is not None
    assert (before.rules.version, before.segment) == (1, "new_customers")
    assert (after.rules.version, after.segment) == (abc.version, "recency_b")
    assert never is None


async def test_migration_between_two_days_adds_up_to_the_clients_own_ways(
    scoring: Scoring,
) -> None:
    deals = history()
    await scoring.hears(*deals)
    rules = await in_force_from(scoring, DEFAULT_RULE_SET, NEW_YEAR - timedelta(days=400))
    begin, end = rules.day_of(on(150)), rules.day_of(on(500))
    ends = [
        folded(deals, [], rules, rules.start_of(day + timedelta(1)) - timedelta(microseconds=1))
        for day in (begin, end)
    ]

    async with scoring.database.transaction() as tx:
        found = await migration(tx, begin, end)

    ways: Counter[Any] = Counter()
    for client in ends[0].keys() | ends[1].keys():
        was, became = (side.get(client) for side in ends)
        rated = [sum(s.scores or ()) if s else 0 for s in (was, became)]
        direction = (rated[1] > rated[0]) - (rated[1] < rated[0])
        ways[was and was.segment, became and became.segment, direction] += 1
    assert {(m.before, m.after, m.direction): m.clients for m in found} == ways
    assert any(m.before is None for m in found)
    assert sum(m.money_after for m in found) == sum(
        s.figures.monetary_minor for s in ends[1].values() if s.figures
    )
    for m in found:
        for client in m.examples:
            was, became = (side.get(client) for side in ends)
            assert (was and was.segment, became and became.segment) == (m.before, m.after)


async def test_the_past_is_told_by_api(api: App, scoring: Scoring) -> None:
    client = new_id()
    now = datetime.now(UTC)
    await scoring.hears(
        closed(client, ago=100, money=900_000, at=now), closed(client, ago=40, money=50, at=now)
    )

    async def score_at(ago: int) -> Any:
        at = (now - timedelta(days=ago)).isoformat().replace("+00:00", "Z")
        return await api.call("GET", f"/v1/clients/{client}/score-at?at={at}", role="manager")

    then = (await score_at(60)).json()
    assert (then["recency_days"], then["frequency"], then["monetary_minor"]) == (40, 1, 900_000)
    assert then["segment_label"] == "Новые"
    assert problem(await score_at(101)) == (404, "client-not-scored")
    assert problem(await score_at(-1)) == (422, "not-past")

    begin, end = ((now - timedelta(days=ago)).date() for ago in (110, 30))
    table = (await api.call("GET", f"/v1/segment-migration?begin={begin}&end={end}")).json()
    assert table["rose"] == {"clients": 1, "money_before": 0, "money_after": 900_050}
    assert [(m["before"], m["examples"]) for m in table["moves"]] == [(None, [str(client)])]
    swapped = await api.call("GET", f"/v1/segment-migration?begin={end}&end={begin}")
    assert problem(swapped) == (422, "not-past")
