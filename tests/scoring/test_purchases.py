"""Deals become purchases and segments: once, in order, whatever happens on the way."""

import asyncio
import random
from datetime import timedelta

import asyncpg
import pytest

from libs.shared.database import Connection
from libs.shared.events import DealClosed, Event
from libs.shared.ids import new_id
from libs.shared.inbox import Inbox
from libs.shared.subscriptions import Dispatcher, on
from services.scoring.purchases import score_closed_deals, score_reversed_deals
from tests.scoring.conftest import NEW_YEAR, Scoring, closed, reversed_
from tests.shared.streams import record_of

HISTORY_SIZE = 300


def history(seed: int = 1) -> list[DealClosed]:
    """Purchases of 40 clients over a year and a half, as they are heard day by day."""
    chance = random.Random(seed)
    clients = [new_id() for _ in range(40)]
    days = sorted(chance.randrange(0, 550) for _ in range(HISTORY_SIZE))
    return [
        closed(
            chance.choice(clients),
            ago=chance.randrange(0, 30),
            money=chance.randrange(0, 900_000),
            at=NEW_YEAR + timedelta(days=day),
        )
        for day in days
    ]


async def test_the_first_purchase_gives_a_segment_and_says_so(scoring: Scoring) -> None:
    client = new_id()

    await scoring.hears(closed(client, ago=3))

    score = await scoring.score(client)
    assert (score["segment"], score["seq"], score["frequency"]) == ("new_customers", 1, 1)
    assert score["due_at"] > NEW_YEAR
    assert await scoring.said() == [(str(client), 1)]


async def test_a_move_travels_in_the_thread_of_the_deal_that_caused_it(scoring: Scoring) -> None:
    deal = closed(new_id())
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    record = record_of(deal)
    headers = [*record.headers, ("ce_traceparent", traceparent.encode())]

    await scoring.inbox.apply([record._replace(headers=headers)])

    row = await scoring.database.pool.fetchrow("SELECT * FROM outbox")
    assert row is not None
    assert (row["causation_id"], row["correlation_id"]) == (deal.event_id, "c-1")
    assert row["traceparent"] == traceparent


async def test_deals_on_one_day_are_one_purchase_day(scoring: Scoring) -> None:
    client = new_id()

    await scoring.hears(*(closed(client, money=50_000) for _ in range(3)))

    score = await scoring.score(client)
    assert (score["frequency"], score["monetary_minor"]) == (1, 150_000)


async def test_the_same_deal_in_two_events_counts_once(scoring: Scoring) -> None:
    client, deal = new_id(), new_id()

    await scoring.hears(closed(client, deal=deal), closed(client, deal=deal))
    await scoring.hears(closed(client, deal=deal))

    assert (await scoring.score(client))["monetary_minor"] == 100_000


@pytest.mark.parametrize("batch", [1, 7, 100, HISTORY_SIZE])
async def test_how_events_are_cut_into_batches_changes_nothing(
    scoring: Scoring, batch: int, fresh_scoring: Scoring
) -> None:
    events = history()

    await fresh_scoring.hears(*events)
    for start in range(0, len(events), batch):
        await scoring.hears(*events[start : start + batch])

    assert await scoring.everything() == await fresh_scoring.everything()
    assert sorted(await scoring.said()) == sorted(await fresh_scoring.said())
    assert await scoring.besides() == await fresh_scoring.besides()
    by_client: dict[str, list[int]] = {}
    for client, seq in await scoring.said():
        by_client.setdefault(client, []).append(seq)
    assert all(said == list(range(1, len(said) + 1)) for said in by_client.values())


async def test_hearing_everything_twice_changes_nothing(scoring: Scoring) -> None:
    events = history()
    await scoring.hears(*events)
    before, said = await scoring.everything(), await scoring.said()

    await scoring.hears(*events)

    assert await scoring.everything() == before
    assert await scoring.said() == said


async def test_two_workers_with_the_same_events_do_the_work_of_one(
    scoring: Scoring, second_worker: Scoring, fresh_scoring: Scoring
) -> None:
    events = history()

    await asyncio.gather(scoring.hears(*events), second_worker.hears(*events))
    await fresh_scoring.hears(*events)

    assert await scoring.everything() == await fresh_scoring.everything()


async def test_disorder_between_clients_changes_nothing_and_within_one_not_the_end(
    scoring: Scoring, fresh_scoring: Scoring
) -> None:
    events = history()
    shuffled = list(events)
    random.Random(3).shuffle(shuffled)
    end = NEW_YEAR + timedelta(days=600)

    await scoring.hears(*shuffled)
    await scoring.ages_until(end)
    await fresh_scoring.hears(*events)
    await fresh_scoring.ages_until(end)

    query = (
        "SELECT client_id, segment, recency_score, frequency_score, monetary_score, last_day,"
        " frequency, monetary_minor, due_at FROM scores ORDER BY client_id"
    )
    mine = await scoring.database.pool.fetch(query)
    assert mine == await fresh_scoring.database.pool.fetch(query)
    assert (await scoring.is_rescored(end))["mismatches"] == 0


async def test_a_crash_in_the_middle_leaves_nothing_and_the_repeat_does_it_all(
    scoring: Scoring, fresh_scoring: Scoring
) -> None:
    events = history()

    async def dies(deals: list[DealClosed], tx: Connection) -> None:
        await score_closed_deals(deals, tx)
        raise asyncpg.AdminShutdownError("terminating connection")

    inbox = Inbox(scoring.database, Dispatcher([on(DealClosed, dies)]))  # type: ignore[arg-type]
    with pytest.raises(asyncpg.AdminShutdownError):
        await inbox.apply([record_of(event) for event in events])
    assert not any((await scoring.everything()).values())

    await scoring.hears(*events)
    await fresh_scoring.hears(*events)
    assert await scoring.everything() == await fresh_scoring.everything()


async def test_a_full_return_undoes_the_purchase(scoring: Scoring) -> None:
    client = new_id()
    first, second = closed(client, ago=100), closed(client, ago=2)
    await scoring.hears(first, second)

    await scoring.hears(reversed_(second))

    score = await scoring.score(client)
    assert (score["frequency"], score["monetary_minor"]) == (1, 100_000)
    assert score["last_day"] == (NEW_YEAR - timedelta(days=100)).date()
    await scoring.hears(reversed_(first))
    gone = await scoring.score(client)
    assert (gone["segment"], gone["frequency"], gone["due_at"]) == (None, None, None)
    assert (await scoring.is_rescored(NEW_YEAR))["mismatches"] == 0


async def test_a_partial_return_takes_money_but_keeps_the_purchase(scoring: Scoring) -> None:
    client = new_id()
    deal = closed(client)
    await scoring.hears(deal)

    await scoring.hears(reversed_(deal, money=30_000), reversed_(deal, money=20_000))

    score = await scoring.score(client)
    assert (score["frequency"], score["monetary_minor"]) == (1, 50_000)
    assert (await scoring.is_rescored(NEW_YEAR))["mismatches"] == 0


async def test_returning_more_than_was_paid_or_the_unknown_is_laid_aside(scoring: Scoring) -> None:
    client = new_id()
    deal = closed(client)
    await scoring.hears(deal, reversed_(deal, money=100_001), reversed_(closed(new_id())))

    letters = await scoring.database.pool.fetch("SELECT reason FROM dead_letters ORDER BY id")

    assert [row["reason"].split(":")[0] for row in letters] == [
        "ReturnExceedsPurchase",
        "PurchaseUnknown",
    ]
    assert (await scoring.score(client))["monetary_minor"] == 100_000


async def test_a_currency_without_a_rate_is_laid_aside_and_others_go_on(scoring: Scoring) -> None:
    good, bad = new_id(), new_id()
    events: list[Event] = [closed(bad, currency="CHF"), closed(good)]

    await scoring.hears(*events)

    reason = await scoring.database.pool.fetchval("SELECT reason FROM dead_letters")
    assert reason.startswith("CurrencyWithoutRate")
    assert (await scoring.score(good))["segment"] == "new_customers"


async def test_reversals_in_one_batch_act_like_reversals_one_by_one(
    scoring: Scoring, fresh_scoring: Scoring
) -> None:
    deals = history()
    returns = [reversed_(deal, at=NEW_YEAR + timedelta(days=560)) for deal in deals[::3]]
    await scoring.hears(*deals)
    await fresh_scoring.hears(*deals)

    async with scoring.database.transaction() as tx:
        await score_reversed_deals(returns, tx)
    for one in returns:
        async with fresh_scoring.database.transaction() as tx:
            await score_reversed_deals([one], tx)

    assert await scoring.everything() == await fresh_scoring.everything()
    assert (await scoring.is_rescored(NEW_YEAR + timedelta(days=560)))["mismatches"] == 0
