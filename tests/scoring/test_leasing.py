"""Clients taken in hand: each by one manager only, and one at a time by each."""

import asyncio
from uuid import UUID

import httpx

from libs.shared.ids import new_id
from services.scoring.touches.leasing import take
from services.scoring.touches.policy import QueuePolicy
from tests.apps import App, problem
from tests.scoring.conftest import Scoring
from tests.scoring.test_queue import leased, now, overdue, take_next
from tests.scoring.test_touch_planning import spoke


async def test_many_who_ask_at_once_get_different_clients(api: App, scoring: Scoring) -> None:
    clients = await overdue(scoring, 30)
    managers = [new_id() for _ in range(40)]

    given = await asyncio.gather(*(take_next(api, manager) for manager in managers))

    got = [answer["client"]["client_id"] for answer in given if answer["client"]]
    assert sorted(got) == sorted(str(client) for client in clients)
    assert sum(answer["client"] is None for answer in given) == 10
    again = await asyncio.gather(*(take_next(api, manager) for manager in managers))
    assert [answer["client"] and answer["client"]["client_id"] for answer in again] == [
        answer["client"] and answer["client"]["client_id"] for answer in given
    ]


async def test_who_has_called_gets_the_next_and_never_the_same_twice(
    api: App, scoring: Scoring
) -> None:
    first, second, third = await overdue(scoring, 3)
    me, other = new_id(), new_id()
    given = await take_next(api, me)
    assert given["client"]["client_id"] == str(first)

    after = await take_next(api, me, done_with=str(first))
    assert after["client"]["client_id"] == str(second)
    assert (await take_next(api, other))["client"]["client_id"] == str(third)

    await scoring.hears(spoke(first, now(), by=me))
    day = await api.call("GET", "/v1/day", role="manager", manager_id=me)
    assert day.json()["budget"]["done"] == 1
    assert (await take_next(api, me))["client"]["client_id"] == str(second)


async def test_a_lease_ends_by_release_and_by_time(api: App, scoring: Scoring) -> None:
    (client,) = await overdue(scoring, 1)
    me, other = new_id(), new_id()
    mine = await take_next(api, me)
    assert (await take_next(api, other))["client"] is None

    async def release(manager: UUID, lease_no: int) -> httpx.Response:
        return await api.call(
            "POST",
            f"/v1/queue/{client}/release",
            {"lease_no": lease_no},
            role="manager",
            manager_id=manager,
        )

    assert problem(await release(other, mine["lease_no"])) == (409, "lease-over")
    assert (await release(me, mine["lease_no"])).status_code == 204
    assert (await release(me, mine["lease_no"])).status_code == 204  # twice is once
    theirs = await take_next(api, other)
    assert theirs["client"]["client_id"] == str(client)
    assert problem(await release(me, mine["lease_no"])) == (409, "lease-over")

    await scoring.database.pool.execute(
        "UPDATE touch_plans SET leased_until = now() - interval '1 second'"
    )
    assert (await take_next(api, me))["client"]["client_id"] == str(client)
    assert problem(await release(other, theirs["lease_no"])) == (409, "lease-over")


async def test_a_certain_client_can_be_taken_unless_somebody_has_them(
    api: App, scoring: Scoring
) -> None:
    _, client = await overdue(scoring, 2)
    me, other = new_id(), new_id()

    async def take(manager: UUID, whom: UUID = client) -> httpx.Response:
        return await api.call(
            "POST", f"/v1/queue/{whom}/take", {}, role="manager", manager_id=manager
        )

    taken = await take(me)
    assert taken.json()["client"]["client_id"] == str(client)
    refused = await take(other)
    assert problem(refused) == (409, "client-leased")
    assert refused.json()["leased_by"] == str(me)
    assert (await take(me)).status_code == 200
    assert problem(await take(me, new_id())) == (404, "client-not-in-queue")


async def test_next_sent_twice_with_one_key_gives_one_client(api: App, scoring: Scoring) -> None:
    first, second, _ = await overdue(scoring, 3)
    me = new_id()
    await take_next(api, me)

    async def done_with_first() -> httpx.Response:
        return await api.call(
            "POST",
            "/v1/queue/next",
            {"done_with": str(first)},
            role="manager",
            manager_id=me,
            headers={"Idempotency-Key": "one"},
        )

    given = await done_with_first()
    assert given.json()["client"]["client_id"] == str(second)
    assert (await done_with_first()).content == given.content
    assert await leased(scoring) == 2


async def test_a_manager_who_asks_many_times_at_once_gets_one_client(
    api: App, scoring: Scoring
) -> None:
    await overdue(scoring, 12)
    managers = [new_id() for _ in range(3)]

    given = await asyncio.gather(*(take_next(api, managers[n % 3]) for n in range(24)))

    got = [{given[n]["client"]["client_id"] for n in range(first, 24, 3)} for first in range(3)]
    assert [len(clients) for clients in got] == [1, 1, 1]
    assert await leased(scoring) == 3

    done = {managers[n]: min(clients) for n, clients in enumerate(got)}
    after = await asyncio.gather(
        *(take_next(api, managers[n % 3], done_with=done[managers[n % 3]]) for n in range(24))
    )
    again = [{after[n]["client"]["client_id"] for n in range(first, 24, 3)} for first in range(3)]
    assert [len(clients) for clients in again] == [1, 1, 1]
    assert not set.union(*again) & set(done.values())
    assert await leased(scoring) == 6  # those who were called wait for their touches


async def test_next_waits_for_a_take_in_hand_and_gives_whom_it_took(
    api: App, scoring: Scoring
) -> None:
    *_, certain = await overdue(scoring, 3)
    me = new_id()
    async with scoring.database.session() as session:
        await take(session, certain, me, QueuePolicy(), now=now())
        asked = asyncio.create_task(take_next(api, me))
        async with asyncio.timeout(30):
            while not await scoring.database.pool.fetchval(_WAITING):
                await asyncio.sleep(0.01)

    assert (await asked)["client"]["client_id"] == str(certain)
    assert await leased(scoring) == 1


_WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
