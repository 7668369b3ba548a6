"""Reminders go out at their time, move with the meeting and die with it."""

import asyncio
from datetime import timedelta

import pytest

from libs.shared.ids import new_id
from services.notifications.due_reminders import queue_due_reminders
from tests.notifications.conftest import (
    DAY,
    HALF_HOUR,
    MEETING,
    Notifications,
    cancelled,
    client,
    held,
    moved,
    planned,
)

A_MOMENT = timedelta(seconds=5)


async def test_both_stages_go_out_at_their_time_and_not_before(
    notifications: Notifications,
) -> None:
    anna, meeting = new_id(), new_id()
    await notifications.hears(client(anna), planned(anna, meeting))

    await notifications.sends(MEETING - DAY - A_MOMENT)
    assert (notifications.post.mails, notifications.receiver.texts) == ([], [])
    await notifications.sends(MEETING - DAY)
    assert (len(notifications.post.mails), notifications.receiver.texts) == (1, [])
    await notifications.sends(MEETING - HALF_HOUR - A_MOMENT)
    assert (len(notifications.post.mails), notifications.receiver.texts) == (1, [])
    await notifications.sends(MEETING - HALF_HOUR)

    mail = notifications.post.mails[0]
    [(to, text)] = notifications.receiver.texts
    [mail_row, text_row] = await notifications.deliveries()
    assert (mail["To"], mail["Subject"]) == (
        "anna@example.test",
        "Напоминание: Подписание договора",
    )
    assert mail["Message-ID"] == f"<{mail_row['message_id']}@example.test>"
    body = mail.get_body()
    assert body is not None
    shown = body.get_content()
    assert "Анна Петрова" in shown
    assert "среда, 4 марта 2026 г. в 12:00 (Москва)" in shown
    assert f"https://example.test/reschedule/{meeting}" in shown
    assert (to, "Подписание договора" in text) == ("+79215551234", True)
    assert (mail_row["state"], text_row["state"]) == ("sent", "sent")
    assert text_row["provider_id"] == notifications.receiver.channel.list()[0].provider_id
    assert await notifications.states() == [(1, "day_before", "sent"), (1, "half_hour", "sent")]
    assert await notifications.said() == [
        "reminder.scheduled",
        "reminder.scheduled",
        "message.sent",
        "message.sent",
    ]


async def test_a_moved_meeting_moves_both(notifications: Notifications) -> None:
    anna, meeting = new_id(), new_id()
    later = MEETING + timedelta(days=1)
    await notifications.hears(
        client(anna), planned(anna, meeting), moved(anna, meeting, starts_at=later)
    )

    await notifications.sends(MEETING + timedelta(hours=1) - DAY)
    await notifications.sends(later - DAY - A_MOMENT)
    assert (notifications.post.mails, notifications.receiver.texts) == ([], [])
    await notifications.sends(later - DAY)
    await notifications.sends(later - HALF_HOUR)

    assert (len(notifications.post.mails), len(notifications.receiver.texts)) == (1, 1)
    assert await notifications.states() == [
        (1, "day_before", "cancelled"),
        (1, "half_hour", "cancelled"),
        (2, "day_before", "sent"),
        (2, "half_hour", "sent"),
    ]
    assert len(await notifications.said("reminder.cancelled")) == 2


@pytest.mark.parametrize("end", [cancelled, held], ids=["cancelled", "held"])
async def test_a_meeting_that_will_not_happen_sends_nothing(
    notifications: Notifications, end: type
) -> None:
    anna, meeting = new_id(), new_id()
    await notifications.hears(client(anna), planned(anna, meeting), end(anna, meeting))

    await notifications.sends(MEETING - HALF_HOUR)

    assert (notifications.post.mails, notifications.receiver.texts) == ([], [])
    assert {state for _, _, state in await notifications.states()} == {"cancelled"}


async def test_a_cancellation_heard_before_the_plan_wins(notifications: Notifications) -> None:
    anna, meeting = new_id(), new_id()

    await notifications.hears(client(anna), cancelled(anna, meeting))
    await notifications.hears(planned(anna, meeting))
    await notifications.sends(MEETING - HALF_HOUR)

    assert (await notifications.states(), notifications.post.mails) == ([], [])


async def test_an_older_move_heard_late_changes_nothing(notifications: Notifications) -> None:
    anna, meeting = new_id(), new_id()
    second = moved(anna, meeting, starts_at=MEETING + DAY, version=2)
    third = moved(anna, meeting, starts_at=MEETING + 2 * DAY, version=3)

    await notifications.hears(client(anna), planned(anna, meeting), third)
    before = await notifications.states()
    await notifications.hears(second)

    assert await notifications.states() == before
    due = await notifications.database.pool.fetchval("SELECT min(due_at) FROM reminders")
    assert due == MEETING + DAY


async def test_two_moves_in_one_batch_end_as_two_moves_in_two(
    notifications: Notifications,
) -> None:
    anna, meeting = new_id(), new_id()
    moves = [
        moved(anna, meeting, starts_at=MEETING + number * DAY, version=number + 1)
        for number in (1, 2)
    ]

    await notifications.hears(client(anna), planned(anna, meeting), *moves)

    assert [(version, state) for version, _, state in await notifications.states()] == [
        (1, "cancelled"),
        (1, "cancelled"),
        (2, "cancelled"),
        (2, "cancelled"),
        (3, "planned"),
        (3, "planned"),
    ]


async def test_hearing_everything_twice_changes_nothing(notifications: Notifications) -> None:
    anna, meeting = new_id(), new_id()
    events = (
        client(anna),
        planned(anna, meeting),
        moved(anna, meeting, starts_at=MEETING + DAY),
    )
    await notifications.hears(*events)
    before = (await notifications.states(), await notifications.said())

    await notifications.hears(*events)
    await notifications.hears(planned(anna, meeting))  # told again under another event id

    assert (await notifications.states(), await notifications.said()) == before


async def test_a_stage_whose_time_has_passed_is_skipped(notifications: Notifications) -> None:
    anna, meeting = new_id(), new_id()
    at = MEETING - timedelta(hours=3)

    await notifications.hears(client(anna), planned(anna, meeting, at=at))
    await notifications.sends(at)
    await notifications.sends(MEETING - HALF_HOUR)

    assert (notifications.post.mails, len(notifications.receiver.texts)) == ([], 1)
    assert await notifications.states() == [(1, "day_before", "skipped"), (1, "half_hour", "sent")]
    assert await notifications.said() == ["reminder.scheduled", "message.sent"]


async def test_after_an_outage_reminders_go_out_until_the_meeting_begins(
    notifications: Notifications,
) -> None:
    anna, soon, begun = new_id(), new_id(), new_id()
    await notifications.hears(
        client(anna),
        planned(anna, soon, starts_at=MEETING + timedelta(minutes=1)),
        planned(anna, begun, starts_at=MEETING),
    )

    await notifications.sends(MEETING)

    assert (len(notifications.post.mails), len(notifications.receiver.texts)) == (1, 1)
    rows = await notifications.database.pool.fetch(
        "SELECT state, reason FROM reminders WHERE interaction_id = $1", begun
    )
    assert [tuple(row) for row in rows] == [("cancelled", "meeting_began")] * 2


async def test_kinds_that_the_policy_does_not_name_are_not_reminded_of(
    notifications: Notifications,
) -> None:
    anna = new_id()

    await notifications.hears(
        client(anna), planned(anna, new_id(), kind="visit"), planned(anna, new_id(), kind="call")
    )

    assert len(await notifications.states()) == 2


async def test_a_card_that_comes_late_is_waited_for(notifications: Notifications) -> None:
    anna, meeting = new_id(), new_id()
    await notifications.hears(planned(anna, meeting))
    await notifications.queues(MEETING - DAY)
    assert await notifications.deliveries() == []

    await notifications.hears(client(anna))
    await notifications.sends(MEETING - DAY + timedelta(minutes=1))

    assert len(notifications.post.mails) == 1


async def test_the_newest_card_counts_whatever_the_order(notifications: Notifications) -> None:
    anna, meeting = new_id(), new_id()
    newest = client(anna, version=3, email="new@example.test")

    await notifications.hears(planned(anna, meeting), newest)
    await notifications.hears(client(anna, version=2, email="old@example.test"), client(anna))
    await notifications.sends(MEETING - DAY)

    assert [mail["To"] for mail in notifications.post.mails] == ["new@example.test"]


async def test_two_workers_make_each_message_once(
    notifications: Notifications, second_worker: Notifications
) -> None:
    anna = new_id()
    await notifications.hears(client(anna), *(planned(anna, new_id()) for _ in range(60)))

    await asyncio.gather(
        notifications.queues(MEETING - HALF_HOUR), second_worker.queues(MEETING - HALF_HOUR)
    )

    assert len(await notifications.deliveries()) == 120


async def test_a_crash_leaves_the_reminder_due(notifications: Notifications) -> None:
    anna = new_id()
    await notifications.hears(client(anna), planned(anna, new_id()))
    before = await notifications.states()

    with pytest.raises(ZeroDivisionError):
        async with notifications.database.transaction() as tx:
            assert await queue_due_reminders(tx, MEETING - DAY) == 1
            raise ZeroDivisionError

    assert (await notifications.states(), await notifications.deliveries()) == (before, [])


async def test_a_move_takes_back_a_message_that_waits_to_be_sent(
    notifications: Notifications,
) -> None:
    anna, meeting = new_id(), new_id()
    await notifications.hears(client(anna), planned(anna, meeting))
    await notifications.queues(MEETING - DAY)

    await notifications.hears(moved(anna, meeting, starts_at=MEETING + DAY))
    await notifications.sends(MEETING - DAY)

    assert notifications.post.mails == []
    assert [row["state"] for row in await notifications.deliveries()] == ["cancelled"]
    assert len(await notifications.said("reminder.cancelled")) == 2


async def test_thousands_of_cards_are_kept_in_one_batch(notifications: Notifications) -> None:
    anna = new_id()
    versions = [client(anna, version=version) for version in range(2, 8)]

    await notifications.hears(*(client() for _ in range(2000)), *versions)

    assert await notifications.database.pool.fetchval("SELECT count(*) FROM clients") == 2001
    known = "SELECT version FROM clients WHERE client_id = $1"
    assert await notifications.database.pool.fetchval(known, anna) == 7
