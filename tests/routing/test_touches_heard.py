"""Touches that scoring tells of: a manager who has many to make gets fewer leads by load."""

import itertools
from collections import Counter
from datetime import date, timedelta
from uuid import UUID

from libs.shared.events import TouchDue, TouchEnded, TouchOverdue
from libs.shared.ids import new_id
from services.routing.choosing.rule_set import Goal, RuleSet, Strategy
from services.routing.policy import ClaimPolicy
from services.routing.reports.explaining import explain, replay
from tests.routing.conftest import NOON, Routing

MINUTE = timedelta(minutes=1)
BY_LOAD = RuleSet(otherwise=Goal(strategy=Strategy(kind="load")))


def due(client: UUID, manager: UUID | None, number: int = 1) -> TouchDue:
    return TouchDue(
        client_id=client,
        touch_no=number,
        manager_id=manager,
        segment="champions",
        priority=1,
        due_on=date(2026, 3, 2),
        occurred_at=NOON,
    )


def overdue(client: UUID, manager: UUID | None, number: int = 1) -> TouchOverdue:
    told = due(client, manager, number).model_dump(exclude={"event_id"})
    return TouchOverdue.model_validate(told)


def ended(client: UUID, number: int = 1) -> TouchEnded:
    return TouchEnded(
        client_id=client,
        touch_no=number,
        segment="champions",
        due_on=date(2026, 3, 2),
        outcome="kept",
        occurred_at=NOON,
    )


async def open_touches(routing: Routing) -> dict[UUID | None, int]:
    rows = await routing.database.pool.fetch("SELECT manager_id FROM touches WHERE is_open")
    return dict(Counter(row["manager_id"] for row in rows))


async def test_who_has_touches_to_make_gets_fewer_leads(routing: Routing) -> None:
    ann, ben = sorted([await routing.manager(), await routing.manager()])
    await routing.rules(BY_LOAD)
    clients = [new_id() for _ in range(20)]
    await routing.hears(*(due(client, ann) for client in clients))
    lead, *_ = await routing.comes(4)  # twenty touches are two leads
    assert await routing.spread() == {ann: 1, ben: 3}
    async with routing.database.pool.acquire() as connection:
        (decision, *_) = await explain(connection, lead)
    told = {one.manager_id: one.open_touches for one in decision.candidates}
    assert told == {ann: 20, ben: 0}
    assert "касаний 20" in decision.words

    await routing.hears(*(ended(client) for client in clients))
    await routing.comes(4, at=NOON + 2 * MINUTE)
    assert await routing.spread() == {ann: 4, ben: 4}

    await routing.policy(ClaimPolicy(touches_per_lead=None))
    await routing.hears(*(due(client, ann, 2) for client in clients))
    await routing.comes(4, at=NOON + 4 * MINUTE)
    assert await routing.spread() == {ann: 6, ben: 6}
    async with routing.database.pool.acquire() as connection:
        done = await replay(connection, NOON, NOON + timedelta(days=1))
    assert (done.differing, done.skipped) == ([], 0)


async def test_in_whatever_order_it_is_heard_and_twice(routing: Routing) -> None:
    ann, ben = new_id(), new_id()
    orders = list(itertools.permutations(range(4)))
    for order in orders:
        client = new_id()
        events = [due(client, ann), overdue(client, ann), ended(client), due(client, ben, 2)]
        for place in order:
            await routing.hears(events[place])
            await routing.hears(events[place])
    assert await open_touches(routing) == {ben: len(orders)}

    for order in itertools.permutations(range(3)):  # what has ended stays ended
        client = new_id()
        events = [due(client, ann), overdue(client, ann), ended(client)]
        for place in order:
            await routing.hears(events[place])
    assert await open_touches(routing) == {ben: len(orders)}


async def test_a_touch_of_nobody_is_nobodys_load(routing: Routing) -> None:
    ann = await routing.manager()
    await routing.rules(BY_LOAD)
    await routing.hears(due(new_id(), None), due(new_id(), ann))
    assert await open_touches(routing) == {None: 1, ann: 1}
    assert len(await routing.comes(2)) == 2
    assert await routing.spread() == {ann: 2}
