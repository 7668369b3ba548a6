"""Staff are told of what waits for them: each thing once, by policy, and not when it is over."""

import asyncio
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from libs.shared import policies
from libs.shared.events import (
    Event,
    LeadClaimed,
    LeadClosed,
    LeadConverted,
    LeadUnanswered,
    TouchDue,
    TouchEnded,
    TouchOverdue,
)
from libs.shared.ids import new_id
from services.notifications.models import Delivery
from services.notifications.second_try import DeliveryOutdated, try_again
from services.notifications.sending import Outcome, settle, take_due
from services.notifications.staff.directory import write
from services.notifications.staff.due_alerts import queue_due_alerts
from services.notifications.staff.policy import AlertRule, StaffAlertPolicy
from tests.notifications.conftest import LEASE, MONDAY, Notifications, client

TODAY = MONDAY.date()
DAY_BEGINS = MONDAY - timedelta(hours=3)  # nine o'clock in Moscow
DAY_ENDS = MONDAY + timedelta(hours=6)
MINUTE = timedelta(minutes=1)
TOLD = timedelta(minutes=5)
SUPERVISORS_TOLD = timedelta(minutes=2)


async def person(
    notifications: Notifications, name: str = "Олег", *, staff_id: UUID | None = None, **told: Any
) -> UUID:
    staff_id = staff_id or new_id()
    plain = {
        "name": name,
        "email": f"{staff_id}@example.test",
        "second_channel": f"telegram:{staff_id}",
        "language": None,
        "is_supervisor": False,
        "is_active": True,
    }
    async with notifications.database.session() as session:
        await write(session, staff_id, plain | told, expected=0, by="test", at=MONDAY)
    return staff_id


def unanswered(
    lead: UUID, manager: UUID | None = None, *, of: UUID | None = None, at: datetime = MONDAY
) -> LeadUnanswered:
    return LeadUnanswered(
        lead_id=lead,
        client_id=of or new_id(),
        manager_id=manager,
        epoch=1,
        received_at=at - 3 * MINUTE,
        occurred_at=at,
    )


def claimed(lead: UUID, manager: UUID, *, at: datetime = MONDAY) -> LeadClaimed:
    return LeadClaimed(
        lead_id=lead, client_id=new_id(), manager_id=manager, epoch=1, occurred_at=at
    )


def touch(
    kind: type[TouchDue] | type[TouchOverdue],
    of: UUID,
    manager: UUID | None,
    *,
    number: int = 1,
    on: date = TODAY,
) -> TouchDue | TouchOverdue:
    return kind(
        client_id=of,
        touch_no=number,
        manager_id=manager,
        segment="champions",
        priority=1,
        due_on=on,
        occurred_at=DAY_ENDS if kind is TouchOverdue else DAY_BEGINS,
    )


def ended(of: UUID, outcome: str = "kept", *, number: int = 1) -> TouchEnded:
    return TouchEnded(
        client_id=of,
        touch_no=number,
        segment="champions",
        due_on=TODAY,
        outcome=outcome,
        occurred_at=DAY_BEGINS + MINUTE,
    )


async def alerts(notifications: Notifications) -> list[tuple[str, str, str | None]]:
    """Kind, state and reason of every alert."""
    rows = await notifications.database.pool.fetch(
        "SELECT kind, state, reason FROM alerts ORDER BY alert_id"
    )
    return [tuple(row) for row in rows]


async def test_the_manager_is_told_at_once_and_supervisors_a_little_later(
    notifications: Notifications,
) -> None:
    oleg = await person(notifications)
    boss = await person(notifications, "Вера", is_supervisor=True)
    await person(notifications, "Ушёл", is_supervisor=True, is_active=False)
    anna = new_id()
    await notifications.hears(client(anna), unanswered(new_id(), oleg, of=anna))

    await notifications.sends(MONDAY)
    [(to, text)] = notifications.receiver.texts
    assert to == f"telegram:{oleg}"
    assert text == (
        "Олег, заявки без ответа: 1 (Анна Петрова). Первая ждёт с:"
        " понедельник, 2 марта 2026 г. в 12:00 (Москва). Чья очередь: Олег."
    )
    await notifications.sends(MONDAY + SUPERVISORS_TOLD)

    assert [to for to, _ in notifications.receiver.texts] == [f"telegram:{p}" for p in (oleg, boss)]
    assert await alerts(notifications) == [("lead_unanswered", "sent", None)] * 2
    assert await notifications.said("message") == []  # messages of clients only


async def test_what_is_heard_twice_is_told_once(notifications: Notifications) -> None:
    oleg, anna = await person(notifications, is_supervisor=True), new_id()
    first = unanswered(new_id(), oleg)
    due = touch(TouchDue, anna, oleg)

    await notifications.hears(first, due, first, due)
    await notifications.hears(first, unanswered(first.lead_id, oleg))
    await notifications.hears(due, touch(TouchDue, anna, oleg))
    await notifications.sends(MONDAY)
    await notifications.sends(MONDAY + SUPERVISORS_TOLD)

    assert len(await alerts(notifications)) == 2  # a supervisor whose own lead it is: once, too
    assert (len(notifications.post.mails), len(notifications.receiver.texts)) == (1, 1)


@pytest.mark.parametrize("end", [LeadClaimed, LeadConverted, LeadClosed])
async def test_a_lead_that_is_taken_or_ended_is_told_to_nobody_any_more(
    notifications: Notifications, end: type[Event]
) -> None:
    boss, lead = await person(notifications, is_supervisor=True), new_id()
    told: dict[str, Any] = {"lead_id": lead, "client_id": new_id(), "epoch": 1}
    told |= {"manager_id": boss, "occurred_at": MONDAY + MINUTE}
    if end is not LeadClaimed:
        told["is_returning"] = False
    if end is LeadClosed:
        told["reason"] = "spam"

    await notifications.hears(unanswered(lead))
    await notifications.hears(end(**told))
    await notifications.sends(MONDAY + SUPERVISORS_TOLD)

    assert notifications.receiver.texts == []
    reason = end.event_name.replace(".", "_")
    assert await alerts(notifications) == [("lead_unanswered", "cancelled", reason)]


async def test_touches_of_a_day_are_one_letter(notifications: Notifications) -> None:
    oleg = await person(notifications)
    clients = [new_id() for _ in range(12)]
    await notifications.hears(
        *(client(one, full_name=f"Клиент [{n}]") for n, one in enumerate(clients[:11])),
        *(touch(TouchDue, one, oleg) for one in clients),
        touch(TouchDue, new_id(), None),  # of the common queue: nobody's own
        touch(TouchDue, new_id(), new_id()),  # of somebody whom the directory does not know
    )

    await notifications.sends(DAY_BEGINS + TOLD - MINUTE)
    assert notifications.post.mails == []
    await notifications.sends(DAY_BEGINS + TOLD)

    [mail] = notifications.post.mails
    assert (mail["To"], mail["Subject"]) == (f"{oleg}@example.test", "Касания на сегодня: 12")
    body = mail.get_body()
    assert body is not None
    assert "Клиент (0), Клиент (1)" in body.get_content()
    assert "и ещё 2" in " ".join(body.get_content().split())
    [row] = await notifications.deliveries()
    assert (row["staff_id"], row["client_id"], row["state"]) == (oleg, None, "sent")


@pytest.mark.parametrize("outcome", ["kept", "late", "void"])
@pytest.mark.parametrize("together", [True, False])
async def test_a_touch_that_is_over_is_told_to_nobody_any_more(
    notifications: Notifications, outcome: str, together: bool
) -> None:
    oleg, anna = await person(notifications), new_id()
    kind = TouchOverdue if outcome == "late" else TouchDue
    heard: list[Event] = [touch(kind, anna, oleg), ended(anna, outcome)]

    for batch in [heard] if together else [[event] for event in heard]:
        await notifications.hears(*batch)
    await notifications.hears(touch(kind, anna, oleg))  # said again by a replay
    await notifications.sends(DAY_ENDS + TOLD)

    assert notifications.post.mails == []
    assert {(state, reason) for _, state, reason in await alerts(notifications)} == {
        ("cancelled", f"touch_{outcome}")
    }


async def test_the_end_of_one_touch_leaves_the_next_alone(notifications: Notifications) -> None:
    oleg, anna = await person(notifications), new_id()
    await notifications.hears(ended(anna), touch(TouchDue, anna, oleg, number=2), ended(anna))

    await notifications.sends(DAY_BEGINS + TOLD)

    assert len(notifications.post.mails) == 1


async def test_an_overdue_touch_takes_the_place_of_a_due_one(
    notifications: Notifications,
) -> None:
    oleg = await person(notifications)
    boss = await person(notifications, "Вера", is_supervisor=True)
    anna = new_id()
    due, overdue = touch(TouchDue, anna, oleg), touch(TouchOverdue, anna, oleg)

    await notifications.hears(due, overdue)  # both heard late, as after an outage
    await notifications.hears(touch(TouchDue, anna, oleg))  # and the older one once more
    await notifications.sends(DAY_ENDS + TOLD)

    assert sorted(str(mail["To"]) for mail in notifications.post.mails) == sorted(
        f"{who}@example.test" for who in (oleg, boss)
    )
    assert {str(mail["Subject"]) for mail in notifications.post.mails} == {
        "Просроченные касания: 1"
    }
    assert await alerts(notifications) == [
        ("touch_due", "cancelled", "superseded"),
        ("touch_overdue", "sent", None),
        ("touch_overdue", "sent", None),
    ]


async def test_the_next_touch_ends_the_alerts_of_the_one_before(
    notifications: Notifications,
) -> None:
    oleg, anna = await person(notifications), new_id()
    tuesday = TODAY + timedelta(days=1)
    await notifications.hears(touch(TouchOverdue, anna, oleg))
    await notifications.hears(touch(TouchDue, anna, oleg, number=2, on=tuesday))
    await notifications.hears(touch(TouchOverdue, anna, oleg))

    await notifications.sends(DAY_ENDS + TOLD)

    assert [(kind, state) for kind, state, _ in await alerts(notifications)] == [
        ("touch_overdue", "cancelled"),
        ("touch_due", "sent"),
    ]


async def test_what_could_not_be_told_for_too_long_is_not_told(
    notifications: Notifications,
) -> None:
    await person(notifications, is_supervisor=True)
    await notifications.hears(unanswered(new_id()))

    await notifications.sends(MONDAY + timedelta(hours=1))

    assert await alerts(notifications) == [("lead_unanswered", "cancelled", "too_late")]


async def test_a_message_that_waits_for_its_next_try_is_dropped_when_it_is_over(
    notifications: Notifications,
) -> None:
    oleg, lead = await person(notifications), new_id()
    notifications.receiver.failures = [503]
    await notifications.hears(unanswered(lead, oleg))
    await notifications.sends(MONDAY)
    assert await alerts(notifications) == [("lead_unanswered", "sending", None)]

    await notifications.hears(claimed(lead, oleg))
    await notifications.sends(MONDAY + MINUTE)

    assert notifications.receiver.texts == []
    [row] = await notifications.deliveries()
    assert (row["state"], row["reason"]) == ("cancelled", "too_late")
    assert await alerts(notifications) == [("lead_unanswered", "cancelled", "too_late")]
    assert await notifications.said() == []


async def test_a_message_tells_what_is_left_though_a_part_is_over(
    notifications: Notifications,
) -> None:
    oleg, taken, left = await person(notifications), new_id(), new_id()
    notifications.receiver.failures = [503]
    await notifications.hears(unanswered(taken, oleg), unanswered(left, oleg))
    await notifications.sends(MONDAY)

    await notifications.hears(claimed(taken, oleg))
    await notifications.sends(MONDAY + MINUTE)

    assert len(notifications.receiver.texts) == 1


async def test_two_workers_make_one_message_for_each_person(
    notifications: Notifications, second_worker: Notifications
) -> None:
    people = [await person(notifications) for _ in range(30)]
    await notifications.hears(*(unanswered(new_id(), one) for one in people for _ in range(5)))

    await asyncio.gather(notifications.queues(MONDAY), second_worker.queues(MONDAY))
    await notifications.sends(MONDAY)

    assert len(await notifications.deliveries()) == len(people)
    assert sorted(to for to, _ in notifications.receiver.texts) == sorted(
        f"telegram:{one}" for one in people
    )


async def test_a_crash_leaves_alerts_due(notifications: Notifications) -> None:
    oleg = await person(notifications)
    await notifications.hears(unanswered(new_id(), oleg))

    class Died(Exception):
        pass

    with pytest.raises(Died):
        async with notifications.database.transaction() as tx:
            assert await queue_due_alerts(tx, MONDAY) == 1
            raise Died

    assert await notifications.deliveries() == []
    await notifications.sends(MONDAY)
    assert len(notifications.receiver.texts) == 1


async def test_who_has_no_address_there_is_written_down_and_can_be_tried_again(
    notifications: Notifications,
) -> None:
    oleg = await person(notifications, second_channel=None)
    await notifications.hears(unanswered(new_id(), oleg))
    await notifications.sends(MONDAY)
    assert await alerts(notifications) == [("lead_unanswered", "failed", "no_address")]
    [before] = await notifications.deliveries()

    await person(notifications, staff_id=oleg)
    async with notifications.database.session() as session:
        delivery = await session.get(Delivery, before["message_id"])
        assert delivery is not None
        await try_again(session, delivery, now=MONDAY + MINUTE)
    await notifications.sends(MONDAY + MINUTE)

    [after] = await notifications.deliveries()
    assert (after["message_id"], after["state"]) == (before["message_id"], "sent")
    assert len(notifications.receiver.texts) == 1


async def test_nothing_is_tried_again_that_somebody_has_taken(
    notifications: Notifications,
) -> None:
    oleg, lead = await person(notifications, second_channel=None), new_id()
    await notifications.hears(unanswered(lead, oleg))
    await notifications.sends(MONDAY)
    await notifications.hears(claimed(lead, oleg))

    async with notifications.database.session() as session:
        [row] = await notifications.deliveries()
        delivery = await session.get(Delivery, row["message_id"])
        assert delivery is not None
        with pytest.raises(DeliveryOutdated):
            await try_again(session, delivery, now=MONDAY + MINUTE)


async def test_a_message_of_a_dead_worker_goes_out_once(notifications: Notifications) -> None:
    oleg = await person(notifications)
    await notifications.hears(unanswered(new_id(), oleg))
    await notifications.queues(MONDAY)
    async with notifications.database.transaction() as tx:
        [message] = await take_due(tx, "second_channel", now=MONDAY, lease=LEASE)
    await notifications.database.pool.execute(
        "UPDATE deliveries SET leased_until = now() - interval '1 second'"
    )

    await notifications.sends(MONDAY)
    async with notifications.database.transaction() as tx:  # it was only slow
        settled = await settle(tx, message, Outcome("later", "late"), now=MONDAY)

    assert (settled, len(notifications.receiver.texts)) == (False, 1)
    assert await alerts(notifications) == [("lead_unanswered", "sent", None)]


async def test_the_policy_decides_who_is_told_of_what(notifications: Notifications) -> None:
    oleg = await person(notifications)
    rule = AlertRule(
        kind="touch_due", to="manager", channel="second_channel", template="staff_touches_due"
    )
    async with notifications.database.session() as session:
        wanted = StaffAlertPolicy(rules=(rule,))
        await policies.write(session, wanted, expected=0, by="test", at=MONDAY, reason=None)
    await notifications.hears(touch(TouchDue, new_id(), oleg), unanswered(new_id(), oleg))

    await notifications.sends(DAY_BEGINS)

    assert await alerts(notifications) == [("touch_due", "sent", None)]
    [(_, text)] = notifications.receiver.texts
    assert "новый клиент" in text
