"""Every lead has one owner, moves on when nobody claims it, and is never lost."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from libs.shared.database import Database
from libs.shared.errors import Conflict
from libs.shared.ids import new_id
from services.routing import handing_over
from services.routing.claim_timeout import reassign_lapsed_leads
from services.routing.lead import ClaimWindowClosed, LeadOfferedToAnother, OfferStale
from tests.routing.conftest import NOON, WINDOW, Routing, holders_at_every_moment, received

SECOND = timedelta(seconds=1)


async def claim(routing: Routing, lead: UUID, by: UUID, epoch: int, now: object = NOON) -> None:
    async with routing.database.session() as session:
        await handing_over.claim(session, lead, by=by, epoch=epoch, now=now)  # type: ignore[arg-type]  # tests pass instants only


async def test_a_lead_is_offered_to_a_manager_on_shift(routing: Routing) -> None:
    ann = await routing.manager()
    await routing.manager(on_shift=False)

    (lead,) = await routing.comes()

    row = await routing.lead(lead)
    assert (row["state"], row["manager_id"], row["epoch"]) == ("offered", ann, 1)
    assert row["due_at"] == NOON + WINDOW
    assert await routing.said(lead) == [("lead.assigned", 1)]


async def test_a_lead_received_twice_is_offered_once(routing: Routing) -> None:
    await routing.manager()
    event = received()

    await routing.hears(event, event, received(lead=event.lead_id))
    await routing.offers()
    await routing.hears(event)
    await routing.offers()

    assert await routing.said() == [("lead.assigned", 1)]


async def test_a_burst_is_spread_evenly_by_two_workers(routing: Routing) -> None:
    managers = [await routing.manager() for _ in range(7)]
    await routing.hears(*(received() for _ in range(1000)))

    await asyncio.gather(*(routing.offers() for _ in range(3)))

    spread = await routing.spread()
    assert set(spread) == set(managers)
    assert sum(spread.values()) == 1000
    assert max(spread.values()) - min(spread.values()) <= 1
    assert len(await routing.said()) == 1000


async def test_a_lapsed_lead_goes_to_the_next_manager(routing: Routing) -> None:
    ann, ben = await routing.manager(), await routing.manager()
    (lead,) = await routing.comes()

    assert await routing.sweeps(NOON + WINDOW - SECOND) == 0
    assert await routing.sweeps(NOON + WINDOW) == 1

    row = await routing.lead(lead)
    assert (row["manager_id"], row["epoch"]) == (ben, 2)
    assert row["due_at"] == NOON + 2 * WINDOW
    assert row["asked"] == [ann]
    assert await routing.said(lead) == [
        ("lead.assigned", 1),
        ("lead.unclaimed", 1),
        ("lead.assigned", 2),
    ]


async def test_when_everybody_was_asked_the_lead_waits_in_the_common_queue(
    routing: Routing,
) -> None:
    await routing.manager()
    await routing.manager()
    (lead,) = await routing.comes()

    await routing.sweeps(NOON + WINDOW)
    await routing.sweeps(NOON + 2 * WINDOW)

    assert (await routing.lead(lead))["state"] == "queued"
    assert (await routing.said(lead))[-2:] == [("lead.unclaimed", 2), ("lead.escalated", 2)]


async def test_with_nobody_on_shift_a_lead_is_queued_not_lost(routing: Routing) -> None:
    (lead,) = await routing.comes()

    assert (await routing.lead(lead))["state"] == "queued"
    assert await routing.said(lead) == [("lead.escalated", 0)]


async def test_two_sweeps_move_each_lead_once(routing: Routing) -> None:
    for _ in range(4):
        await routing.manager()
    leads = await routing.comes(300)

    swept = await asyncio.gather(*(routing.sweeps(NOON + WINDOW) for _ in range(4)))

    assert sum(swept) == 300
    said = await routing.said()
    assert said.count(("lead.unclaimed", 1)) == 300
    assert said.count(("lead.assigned", 2)) == 300
    assert all([(await routing.lead(lead))["epoch"] == 2 for lead in leads])


async def test_a_failed_sweep_leaves_the_old_offer(routing: Routing) -> None:
    ann = await routing.manager()
    (lead,) = await routing.comes()

    with pytest.raises(ZeroDivisionError):
        async with routing.database.transaction() as tx:
            await reassign_lapsed_leads(tx, NOON + WINDOW)
            raise ZeroDivisionError

    row = await routing.lead(lead)
    assert (row["state"], row["manager_id"], row["epoch"]) == ("offered", ann, 1)


async def test_a_claim_at_the_very_end_of_the_window_is_late(routing: Routing) -> None:
    ann = await routing.manager()
    (lead,) = await routing.comes()

    with pytest.raises(ClaimWindowClosed):
        await claim(routing, lead, ann, 1, NOON + WINDOW)
    await claim(routing, lead, ann, 1, NOON + WINDOW - SECOND)

    assert (await routing.lead(lead))["state"] == "claimed"


async def test_claims_race_a_timeout_and_exactly_one_side_wins(
    routing: Routing, routing_url: str
) -> None:
    managers = [await routing.manager() for _ in range(3)]
    leads = await routing.comes(60)
    held = {lead: (await routing.lead(lead))["manager_id"] for lead in leads}

    async def try_to_claim(lead: UUID) -> bool:
        try:
            await claim(routing, lead, held[lead], 1, NOON + WINDOW - SECOND)
        except Conflict:
            return False
        return True

    async with Database.open(routing_url, name="other", pool_size=2) as other:
        claims = [try_to_claim(lead) for lead in leads]
        swept, *won = await asyncio.gather(Routing(other).sweeps(NOON + WINDOW), *claims)

    assert sum(won) + swept == len(leads)
    for lead, was_claimed in zip(leads, won, strict=True):
        row = await routing.lead(lead)
        assert row["manager_id"] in managers
        assert (row["state"], row["epoch"]) == (("claimed", 1) if was_claimed else ("offered", 2))
    assert await holders_at_every_moment(routing) == []


async def test_a_stale_epoch_and_a_strangers_claim_are_refused(routing: Routing) -> None:
    ann, ben = await routing.manager(), await routing.manager()
    (lead,) = await routing.comes()
    await routing.sweeps(NOON + WINDOW)

    with pytest.raises(LeadOfferedToAnother):
        await claim(routing, lead, ann, 1, NOON + WINDOW)
    with pytest.raises(OfferStale):
        await claim(routing, lead, ben, 1, NOON + WINDOW)
    await claim(routing, lead, ben, 2, NOON + WINDOW)
    await claim(routing, lead, ben, 2, NOON + 9 * WINDOW)  # the same claim again

    assert [name for name, _ in await routing.said(lead)].count("lead.claimed") == 1


async def test_a_released_lead_goes_to_somebody_else(routing: Routing) -> None:
    ann, ben = await routing.manager(), await routing.manager()
    (lead,) = await routing.comes()

    async with routing.database.session() as session:
        await handing_over.release(
            session, lead, by=ann, epoch=1, reason="on holiday tomorrow", now=NOON + SECOND
        )
    await routing.offers(NOON + SECOND)

    assert (await routing.lead(lead))["manager_id"] == ben
    assert [name for name, _ in await routing.said(lead)] == [
        "lead.assigned",
        "lead.released",
        "lead.assigned",
    ]
    assert await holders_at_every_moment(routing) == []


async def test_a_returning_client_goes_to_their_own_manager_while_on_shift(
    routing: Routing,
) -> None:
    await routing.manager()
    owner = await routing.manager()
    away = await routing.manager(on_shift=False)

    (first,) = await routing.comes(owner=owner)
    (second,) = await routing.comes(owner=owner)
    (third,) = await routing.comes(owner=away)

    assert (await routing.lead(first))["manager_id"] == owner
    assert (await routing.lead(second))["manager_id"] == owner
    assert (await routing.lead(third))["manager_id"] not in (None, away)


async def test_a_lead_heard_late_still_gets_its_whole_window(routing: Routing) -> None:
    await routing.manager()
    event = received(at=NOON - timedelta(hours=3))

    await routing.hears(event)
    await routing.offers(NOON)

    assert (await routing.lead(event.lead_id))["due_at"] == NOON + WINDOW


async def test_leads_are_offered_in_the_order_they_came(routing: Routing) -> None:
    managers = [await routing.manager() for _ in range(3)]
    events = [received(at=NOON - timedelta(minutes=n)) for n in range(3)]

    await routing.hears(*events)
    await routing.offers()

    order = [(await routing.lead(event.lead_id))["manager_id"] for event in reversed(events)]
    assert order == managers


async def test_an_unknown_lead_is_not_found(routing: Routing) -> None:
    with pytest.raises(handing_over.LeadNotFound):
        await claim(routing, new_id(), new_id(), 1)
