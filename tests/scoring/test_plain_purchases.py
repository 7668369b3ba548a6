"""What one statement makes of a batch of deals is what the fold makes of them, one by one."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.shared import at_once, outbox
from libs.shared.events import DealClosed
from libs.shared.ids import new_id
from libs.shared.leases import NO_FENCE, Fence, Leases
from services.scoring import purchases, score_keeping
from services.scoring.flags.deciding import override
from services.scoring.plain_purchases import buy_plainly, buying_plainly
from services.scoring.presets import DEFAULT_RULE_SET, PRESETS
from services.scoring.rules import RuleSet
from services.scoring.rules_in_force import rules_in_force
from tests.scoring.conftest import NEW_YEAR, Scoring, closed, reversed_
from tests.scoring.test_ageing_and_rescoring import activated

RULE_SETS: dict[str, RuleSet] = {
    "preset": DEFAULT_RULE_SET,
    "purchases counted": DEFAULT_RULE_SET.model_copy(update={"frequency_counts": "purchases"}),
    "a short period": DEFAULT_RULE_SET.model_copy(update={"period_days": 40}),
    "two currencies": DEFAULT_RULE_SET.model_copy(
        update={"exchange_rates": {"EUR": Decimal("91.37")}}
    ),
    "another zone": DEFAULT_RULE_SET.model_copy(update={"zone": "America/Havana"}),
    "a run of months": PRESETS["life_cycle"],
}
CLIENTS = [new_id() for _ in range(6)]
_TABLES = "purchases, purchase_counts, returns, scores, segment_history, outbox, touch_changes"

# Whose deal, how long ago it was closed (or is yet to be), money, in which currency.
DEAL = st.tuples(st.integers(0, 5), st.integers(-30, 420), st.integers(0, 9_000_000), st.booleans())
BATCH = st.lists(DEAL, min_size=1, max_size=6)
WAIT = st.integers(0, 90)
HISTORY = st.lists(st.tuples(WAIT, st.booleans(), st.booleans(), BATCH), min_size=1, max_size=8)


@pytest.mark.parametrize("name", RULE_SETS)
@given(history=HISTORY)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_history_comes_to_what_the_fold_makes_of_it(
    scoring: Scoring, fresh_scoring: Scoring, name: str, history: list[tuple[Any, ...]]
) -> None:
    deals: list[list[DealClosed]] = []
    now = NEW_YEAR
    for wait, _, _, batch in history:
        now += timedelta(days=wait, seconds=1)
        deals.append(
            [
                closed(
                    CLIENTS[whose],
                    ago=ago,
                    money=money,
                    at=now,
                    currency="EUR" if is_euro and name == "two currencies" else "RUB",
                )
                for whose, ago, money, is_euro in batch
            ]
        )
    for each in (scoring, fresh_scoring):
        await each.database.pool.execute(f"TRUNCATE {_TABLES}")
        await _put_in_force(each, RULE_SETS[name])
    for (_, ages, gives_back, _), batch in zip(history, deals, strict=True):
        at = batch[0].occurred_at
        for each in (scoring, fresh_scoring):
            if ages:  # or the timers are late
                await each.ages_until(at)
        await scoring.hears(*batch)
        await _folds(fresh_scoring, batch)
        if gives_back:
            back = reversed_(batch[0], money=batch[0].amount_minor // 3, at=at)
            await scoring.hears(back)
            await fresh_scoring.hears(back)

    assert await scoring.everything() == await fresh_scoring.everything()
    assert await scoring.besides() == await fresh_scoring.besides()
    ids = await scoring.database.pool.fetchrow(
        "SELECT count(*), count(DISTINCT event_id) FROM outbox"
    )
    assert ids is not None
    assert ids[0] == ids[1]


async def _put_in_force(scoring: Scoring, rule_set: RuleSet) -> None:
    if not await scoring.database.pool.fetchval("SELECT 1 FROM rule_changes"):
        await scoring.hears(closed(CLIENTS[0]))  # nobody activates rules for an empty base
        await activated(scoring.database, rule_set, NEW_YEAR)
        await scoring.applies_new_rules(NEW_YEAR)
        await scoring.database.pool.execute(f"TRUNCATE {_TABLES}")


async def _folds(scoring: Scoring, deals: Sequence[DealClosed]) -> None:
    """Hear deals with everybody left to the fold."""

    async def leaves_all(_tx: Any, deals: Sequence[DealClosed], _rules: Any) -> Any:
        return deals

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(purchases, "buy_plainly", leaves_all)
        patch.setattr(purchases, "buying_plainly", lambda *_: None)
        await scoring.hears(*deals)


async def left_to_the_fold(scoring: Scoring, *deals: DealClosed) -> list[UUID]:
    """Whose deals are left; what the others' did is kept."""
    async with scoring.database.transaction() as tx:
        left = await buy_plainly(tx, deals, await rules_in_force(tx))
    return [deal.client_id for deal in left]


async def test_a_usual_batch_is_left_to_nobody(scoring: Scoring) -> None:
    clients = [new_id() for _ in range(50)]

    first = await left_to_the_fold(scoring, *(closed(c, ago=n) for n, c in enumerate(clients)))
    second = await left_to_the_fold(scoring, *(closed(c, ago=2) for c in clients))

    assert (first, second) == ([], [])
    assert await scoring.database.pool.fetchval("SELECT sum(frequency) FROM scores") == 99
    assert (await scoring.is_rescored(NEW_YEAR))["mismatches"] == 0


@pytest.mark.parametrize("case", ["several", "future", "ageing", "override", "known", "currency"])
async def test_whatever_else_happens_is_left_to_the_fold(scoring: Scoring, case: str) -> None:
    client, other = new_id(), new_id()
    known = closed(client, ago=10)
    await scoring.hears(known, closed(other, ago=10))
    deals = [closed(client)]
    if case == "several":
        deals.append(closed(client, ago=1))
    elif case == "future":
        deals = [closed(client, ago=-1)]
    elif case == "ageing":
        deals = [closed(client, at=(await scoring.score(client))["due_at"])]
    elif case == "override":
        async with scoring.database.transaction() as tx:
            rules = await rules_in_force(tx)
            until = rules.day_of(NEW_YEAR + timedelta(days=5))
            await override(tx, [client], "champions", until, rules, NEW_YEAR)
    elif case == "known":
        deals = [closed(client, deal=known.deal_id)]
    elif case == "currency":
        deals = [closed(client, currency="CHF")]
    before = await scoring.score(client)

    left = await left_to_the_fold(scoring, *deals, closed(other))

    assert left == [client] * len(deals)
    assert await scoring.score(client) == before
    assert (await scoring.score(other))["frequency"] == 2


async def test_under_rules_that_are_not_in_force_everybody_is_left(scoring: Scoring) -> None:
    client, newcomer = new_id(), new_id()
    await scoring.hears(closed(client))
    async with scoring.database.transaction() as tx:
        rules = await rules_in_force(tx)
    changed = DEFAULT_RULE_SET.model_copy(update={"period_days": 30})
    await activated(scoring.database, changed, NEW_YEAR)

    deals = [closed(client, ago=1), closed(newcomer)]
    async with scoring.database.transaction() as tx:
        assert await buy_plainly(tx, deals, rules) == deals
    # Not even where the number of the version is the same, as after a database was restored.
    await scoring.database.pool.execute(
        "UPDATE rule_sets SET version = 9 WHERE version = 1;"
        "UPDATE rule_sets SET status = 'retired';"
        "INSERT INTO rule_sets SELECT 1, 'active', body, cuts, created_at, created_by,"
        " activated_at, activated_by FROM rule_sets WHERE version = 2"
    )
    async with scoring.database.transaction() as tx:
        assert await buy_plainly(tx, deals, rules) == deals


async def test_one_deal_of_two_clients_in_a_batch_counts_once(scoring: Scoring) -> None:
    """Contacts never says so; if it did, nothing else of the batch would suffer."""
    deal, one, other, third = new_id(), new_id(), new_id(), new_id()

    await scoring.hears(closed(one, deal=deal), closed(other, deal=deal), closed(third))

    rows = await scoring.database.pool.fetch("SELECT client_id, frequency FROM scores")
    assert {row["client_id"]: row["frequency"] for row in rows} == {one: 1, third: 1}
    assert await scoring.database.pool.fetchval("SELECT count(*) FROM dead_letters") == 0
    assert (await scoring.is_rescored(NEW_YEAR))["mismatches"] == 0


async def test_a_batch_over_midnight_has_two_days(scoring: Scoring) -> None:
    one, other = new_id(), new_id()
    tomorrow = NEW_YEAR + timedelta(days=1)

    left = await left_to_the_fold(scoring, closed(one, ago=5), closed(other, ago=5, at=tomorrow))

    assert left == []
    days = [(await scoring.score(client))["as_of"] for client in (one, other)]
    assert days[1] - days[0] == timedelta(days=1)


async def test_who_waited_for_an_analyst_goes_by_their_word(scoring: Scoring) -> None:
    client = new_id()
    await scoring.hears(closed(client, ago=3))
    async with scoring.database.transaction() as tx:
        rules = await rules_in_force(tx)
        until = rules.day_of(NEW_YEAR + timedelta(days=5))
        await override(tx, [client], "champions", until, rules, NEW_YEAR)
        waiting = asyncio.create_task(scoring.hears(closed(client, ago=1)))
        async with asyncio.timeout(20):
            while not await scoring.database.pool.fetchval(_WAITING):
                await asyncio.sleep(0.01)
    await waiting

    score = await scoring.score(client)
    assert (score["segment"], score["frequency"], score["seq"]) == ("champions", 2, 2)
    assert await scoring.said() == [(str(client), 1), (str(client), 2)]
    assert (await scoring.is_rescored(NEW_YEAR))["mismatches"] == 0


async def test_a_plain_deal_is_heard_at_once_and_another_is_left_to_the_fold(
    scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, judged = new_id(), new_id()
    await scoring.hears(closed(plain, ago=3), closed(judged, ago=3))
    async with scoring.database.transaction() as tx:
        rules = await rules_in_force(tx)
        until = rules.day_of(NEW_YEAR + timedelta(days=5))
        await override(tx, [judged], "champions", until, rules, NEW_YEAR)
    folded: list[UUID] = []
    by_the_fold = score_keeping.load_alone

    async def load_alone(tx: Any, clients: Any, deals: Any = ()) -> Any:
        folded.extend(clients)
        return await by_the_fold(tx, clients, deals)

    async def not_this_way(*_: object) -> Any:
        raise AssertionError("it was to be heard at once")

    monkeypatch.setattr(purchases, "load_alone", load_alone)
    with monkeypatch.context() as patched:
        patched.setattr(purchases, "buy_plainly", not_this_way)
        await scoring.hears(closed(plain, ago=2))
    await scoring.hears(closed(plain, ago=1), closed(judged, ago=1))

    assert folded == [judged]
    assert [(await scoring.score(c))["frequency"] for c in (plain, judged)] == [3, 2]


_WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
        AND query LIKE '%told%'
"""


async def sent_ahead(
    scoring: Scoring, *deals: DealClosed, fence: Fence = NO_FENCE
) -> list[tuple[object, ...]]:
    """What the statement that hears deals at once lets be sent without being read."""
    async with scoring.database.transaction() as tx:
        statement = buying_plainly(deals, await rules_in_force(tx))
    assert statement is not None
    async with scoring.database.by_keys.acquire() as connection:
        ids = [deal.event_id for deal in deals]
        return [tuple(row) for row in await at_once.hear(connection, fence, ids, statement)]


async def stands_in_the_outbox(scoring: Scoring) -> list[tuple[object, ...]]:
    columns = ", ".join(outbox.SENT_COLUMNS)
    rows = await scoring.database.pool.fetch(f"SELECT {columns} FROM outbox ORDER BY id")
    return [tuple(row) for row in rows]


async def test_a_move_is_sent_ahead_where_nothing_stands_before_it(scoring: Scoring) -> None:
    one, other = new_id(), new_id()

    first = await sent_ahead(scoring, closed(one, ago=300), closed(other, ago=300))

    assert len(first) == 2
    assert first == await stands_in_the_outbox(scoring)
    await scoring.database.pool.execute("UPDATE outbox SET shard = (shard + 1) % 8")
    if (outbox.shard_of(str(other)) + 1) % 8 == outbox.shard_of(str(one)):
        await scoring.database.pool.execute("DELETE FROM outbox WHERE key = $1", str(other))
    again = await sent_ahead(scoring, closed(one, ago=1))
    assert again == (await stands_in_the_outbox(scoring))[-1:]
    await scoring.database.pool.execute("UPDATE outbox SET shard = $1", outbox.shard_of(str(other)))
    assert await sent_ahead(scoring, closed(other, ago=1)) == []  # what is before it has to be read
    assert (await stands_in_the_outbox(scoring))[-1][5] == str(other)


async def test_who_waits_for_a_position_has_locked_no_client(scoring: Scoring) -> None:
    """As on the ordinary way: two that lock in different orders would wait for each other."""
    client, at = new_id(), ("deals", 0)
    await scoring.hears(closed(client, ago=300))
    leases = Leases(scoring.database.dsn, group="g", topics=[at[0]])
    await leases.enter({at: 0})
    async with scoring.database.transaction() as tx:
        await tx.execute("SELECT FROM consumer_positions FOR UPDATE")
        hearing = sent_ahead(scoring, closed(client, ago=1), fence=leases.fence({at: 1}))
        waiting = asyncio.create_task(hearing)
        async with asyncio.timeout(20):
            while not await scoring.database.pool.fetchval(_WAITING):
                await asyncio.sleep(0.01)
        locked = await tx.fetch("SELECT client_id FROM scores FOR UPDATE NOWAIT")

    assert [row["client_id"] for row in locked] == [client]
    await waiting
    await leases._leave()


async def test_a_purchase_that_moves_nobody_leaves_nothing_to_send(scoring: Scoring) -> None:
    client = new_id()
    await scoring.hears(*(closed(client, ago=ago) for ago in range(1, 40)))
    segment = (await scoring.score(client))["segment"]
    await scoring.database.pool.execute("TRUNCATE outbox")

    assert await sent_ahead(scoring, closed(client, ago=0)) == []
    score = await scoring.score(client)
    assert (score["segment"], score["frequency"]) == (segment, 40)


async def test_a_deal_that_is_left_is_not_lost_where_nothing_is_said(scoring: Scoring) -> None:
    known = closed(new_id(), ago=3)
    await scoring.hears(known)
    await scoring.database.pool.execute("TRUNCATE outbox")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await sent_ahead(scoring, closed(known.client_id, deal=known.deal_id))


async def test_a_move_of_who_was_moved_meanwhile_is_not_sent_ahead(scoring: Scoring) -> None:
    """What the other one said is not seen by the statement, which began before it."""
    client = new_id()
    await scoring.hears(closed(client, ago=300))
    await scoring.database.pool.execute("TRUNCATE outbox")
    async with scoring.database.transaction() as tx:
        await tx.execute("UPDATE scores SET seq = seq + 1 WHERE client_id = $1", client)
        waiting = asyncio.create_task(sent_ahead(scoring, closed(client, ago=1)))
        async with asyncio.timeout(20):
            while not await scoring.database.pool.fetchval(_WAITING):
                await asyncio.sleep(0.01)

    assert await waiting == []
    assert len(await stands_in_the_outbox(scoring)) == 1


async def test_who_waited_for_another_goes_on_from_what_that_one_left(scoring: Scoring) -> None:
    client = new_id()
    await scoring.hears(closed(client, ago=2, money=1_000))
    async with scoring.database.transaction() as tx:
        await tx.execute(
            "UPDATE scores SET monetary_minor = monetary_minor + 7 WHERE client_id = $1", client
        )
        waiting = asyncio.create_task(scoring.hears(closed(client, ago=1, money=500)))
        async with asyncio.timeout(20):
            while not await scoring.database.pool.fetchval(_WAITING):
                await asyncio.sleep(0.01)
    await waiting

    score = await scoring.score(client)
    assert (score["frequency"], score["monetary_minor"]) == (2, 1_507)


async def test_a_plan_made_for_three_clients_reads_no_table_of_thousands(
    scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL keeps it until the next ANALYZE, which may be a minute away."""
    monkeypatch.setattr(score_keeping, "_last_rules", None)
    few, many = [new_id() for _ in range(3)], [new_id() for _ in range(2_000)]
    pool = scoring.database.pool
    await pool.execute(
        "ALTER TABLE scores SET (autovacuum_enabled = off);"
        "ALTER TABLE purchases SET (autovacuum_enabled = off)"
    )
    await scoring.hears(*(closed(client) for client in few))
    await pool.execute("ANALYZE scores; ANALYZE purchases")
    for _ in range(8):  # after five PostgreSQL keeps a plan for any parameters
        await scoring.hears(*(closed(client) for client in few))
    before = await _read_from_end_to_end(scoring)

    await scoring.hears(*(closed(client, ago=40) for client in many))
    await scoring.hears(*(closed(client) for client in many[:100] for _ in range(2)))

    assert await _read_from_end_to_end(scoring) == before


async def _read_from_end_to_end(scoring: Scoring) -> int:
    pool = scoring.database.pool
    await asyncio.sleep(1.1)  # a session tells once a second what it did
    await asyncio.gather(*(pool.execute("SELECT pg_stat_force_next_flush()") for _ in range(4)))
    count: int = await pool.fetchval(
        "SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE relname IN ('scores', 'purchases')"
    )
    return count
