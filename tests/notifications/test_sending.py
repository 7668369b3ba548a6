"""Messages go out once wherever that can be known, and what went wrong is written down."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from libs.shared.ids import new_id
from services.notifications.mail import Mail
from services.notifications.second_channel import SecondChannel
from services.notifications.sending import Outcome, settle, take_due
from tests.conftest import free_port
from tests.notifications.conftest import (
    DAY,
    HALF_HOUR,
    LEASE,
    MEETING,
    TIMEOUT,
    Notifications,
    cancelled,
    client,
    moved,
    planned,
)

BEFORE = MEETING - DAY
SOON = MEETING - HALF_HOUR


async def waiting(notifications: Notifications, *, now: datetime = BEFORE) -> tuple[UUID, UUID]:
    """A client and a meeting whose reminders wait to be sent at `now`."""
    anna, meeting = new_id(), new_id()
    await notifications.hears(client(anna), planned(anna, meeting))
    await notifications.queues(now)
    await notifications.set_clock(now)
    return anna, meeting


async def row_of(notifications: Notifications, channel: str) -> asyncpg.Record:
    [row] = [row for row in await notifications.deliveries() if row["channel"] == channel]
    return row


async def taken_and_never_heard_of_again(notifications: Notifications, channel: str) -> None:
    """A worker takes the message, hands it over, and dies before it can say so."""
    async with notifications.database.transaction() as tx:
        [message] = await take_due(tx, channel, now=SOON, lease=LEASE)
    way: Mail | SecondChannel = Mail(notifications.post.url, "baza@example.test", TIMEOUT)
    if channel == "second_channel":
        way = SecondChannel(notifications.receiver.url, "", TIMEOUT)
    assert (await way.send(message)).verdict == "sent"
    await way.rest()


async def lapse(notifications: Notifications) -> None:
    await notifications.database.pool.execute(
        "UPDATE deliveries SET leased_until = now() - interval '1 second' WHERE state = 'sending'"
    )


async def test_a_message_taken_by_a_dead_worker_waits_for_its_lease(
    notifications: Notifications,
) -> None:
    await waiting(notifications, now=SOON)
    await taken_and_never_heard_of_again(notifications, "second_channel")

    assert await notifications.loop("second_channel").send_due() == 0

    row = await row_of(notifications, "second_channel")
    assert (row["state"], row["attempts"]) == ("sending", 1)


async def test_the_second_channel_gets_a_message_once_after_a_crash(
    notifications: Notifications,
) -> None:
    await waiting(notifications, now=SOON)
    await taken_and_never_heard_of_again(notifications, "second_channel")
    await lapse(notifications)

    assert await notifications.loop("second_channel").send_due() == 1

    row = await row_of(notifications, "second_channel")
    assert (len(notifications.receiver.texts), row["state"], row["attempts"]) == (1, "sent", 2)
    assert await notifications.said("message") == ["message.sent"]


async def test_mail_goes_out_again_under_the_same_message_id_after_a_crash(
    notifications: Notifications,
) -> None:
    await waiting(notifications, now=SOON)
    await taken_and_never_heard_of_again(notifications, "email")
    await lapse(notifications)

    assert await notifications.loop("email").send_due() == 1

    assert len(notifications.post.mails) == 2
    assert len({mail["Message-ID"] for mail in notifications.post.mails}) == 1
    assert (await row_of(notifications, "email"))["state"] == "sent"
    assert await notifications.said("message") == ["message.sent"]


async def test_a_jump_of_the_sandbox_clock_takes_no_message_away(
    notifications: Notifications, second_worker: Notifications
) -> None:
    await waiting(notifications, now=SOON)
    async with notifications.database.transaction() as tx:
        assert len(await take_due(tx, "email", now=SOON, lease=LEASE)) == 1

    await notifications.set_clock(MEETING - timedelta(minutes=1))

    assert await second_worker.loop("email").send_due() == 0


async def test_two_workers_send_each_message_once(
    notifications: Notifications, second_worker: Notifications
) -> None:
    anna = new_id()
    await notifications.hears(client(anna), *(planned(anna, new_id()) for _ in range(40)))
    await notifications.queues(SOON)
    await notifications.set_clock(SOON)

    async def work(worker: Notifications, channel: str) -> None:
        loop = worker.loop(channel)
        while await loop.send_due():
            pass

    await asyncio.gather(
        *(
            work(worker, channel)
            for worker in (notifications, second_worker)
            for channel in ("email", "second_channel")
        )
    )

    ids = {mail["Message-ID"] for mail in notifications.post.mails}
    assert (len(notifications.post.mails), len(ids)) == (40, 40)
    assert len(notifications.receiver.texts) == 40
    assert {row["attempts"] for row in await notifications.deliveries()} == {1}
    assert len(await notifications.said("message.sent")) == 80


async def test_an_outcome_that_comes_after_the_lease_does_not_undo_anothers(
    notifications: Notifications,
) -> None:
    await waiting(notifications, now=SOON)
    async with notifications.database.transaction() as tx:
        [late] = await take_due(tx, "email", now=SOON, lease=LEASE)
    await lapse(notifications)
    await notifications.loop("email").send_due()

    async with notifications.database.transaction() as tx:
        assert not await settle(tx, late, Outcome("refused", "smtp_550: no"), now=SOON)

    assert (await row_of(notifications, "email"))["state"] == "sent"
    assert await notifications.said("message") == ["message.sent"]


async def test_mail_waits_while_the_server_is_down_and_goes_when_it_is_up(
    notifications: Notifications,
) -> None:
    await waiting(notifications)
    await notifications.post.close()

    await notifications.loop("email").send_due()
    row = await row_of(notifications, "email")
    assert (row["state"], row["attempts"], row["may_have_gone"]) == ("queued", 1, False)
    assert row["reason"].startswith("smtp_unreachable")
    assert row["due_at"] > BEFORE
    await notifications.post.open()
    await notifications.sends(row["due_at"])

    assert len(notifications.post.mails) == 1
    sent = await row_of(notifications, "email")
    assert (sent["state"], sent["reason"], sent["address"]) == ("sent", None, None)


async def test_a_greylisted_mail_is_tried_again(notifications: Notifications) -> None:
    await waiting(notifications)
    notifications.post.answers["anna@example.test"] = "451 come back later"

    await notifications.loop("email").send_due()
    due_at = (await row_of(notifications, "email"))["due_at"]
    notifications.post.answers.clear()
    await notifications.sends(due_at)

    assert len(notifications.post.mails) == 1


async def test_a_refused_recipient_has_failed_for_ever(notifications: Notifications) -> None:
    await waiting(notifications)
    notifications.post.answers["anna@example.test"] = "550 no such user anna@example.test"

    await notifications.sends(BEFORE)
    await notifications.sends(BEFORE + timedelta(hours=1))

    row = await row_of(notifications, "email")
    assert (row["state"], row["attempts"]) == ("failed", 1)
    assert row["reason"] == "smtp_550: no such user ***"
    assert await notifications.said("message") == ["message.failed"]
    assert (1, "day_before", "failed") in await notifications.states()
    data = await notifications.database.pool.fetchval(
        "SELECT convert_from(data, 'UTF8') FROM outbox WHERE type = 'baza.message.failed.v1'"
    )
    assert "anna" not in data


async def test_one_refused_letter_does_not_spoil_the_next(notifications: Notifications) -> None:
    bad, good = new_id(), new_id()
    notifications.post.answers["bad@example.test"] = "550 no"
    await notifications.hears(
        client(bad, email="bad@example.test"),
        client(good),
        *(planned(one, new_id()) for one in (bad, good) * 10),
    )

    await notifications.sends(BEFORE)

    assert {mail["To"] for mail in notifications.post.mails} == {"anna@example.test"}
    assert len(notifications.post.mails) == 10


async def test_a_letter_cut_off_after_its_text_is_repeated_and_known_to_be_in_doubt(
    notifications: Notifications,
) -> None:
    await waiting(notifications)
    notifications.post.data_answers = [""]

    await notifications.loop("email").send_due()
    row = await row_of(notifications, "email")
    assert (row["state"], row["may_have_gone"]) == ("queued", True)
    await notifications.sends(row["due_at"])

    assert len({mail["Message-ID"] for mail in notifications.post.mails}) == 1
    assert (await row_of(notifications, "email"))["state"] == "sent"


async def test_attempts_end_and_the_message_has_failed(notifications: Notifications) -> None:
    await waiting(notifications)
    await notifications.post.close()
    loop = notifications.loop("email")
    for _ in range(12):
        await notifications.database.pool.execute(
            "UPDATE deliveries SET due_at = $1 WHERE state = 'queued'", BEFORE
        )
        assert await loop.send_due() == 1

    row = await row_of(notifications, "email")
    assert (row["state"], row["attempts"]) == ("failed", 12)
    assert await notifications.said("message") == ["message.failed"]


async def test_the_second_channel_is_tried_again(notifications: Notifications) -> None:
    await waiting(notifications, now=SOON)
    notifications.receiver.failures = [500, 503, 429, 408]
    now = SOON

    for attempts in range(1, 5):
        await notifications.sends(now)
        row = await row_of(notifications, "second_channel")
        assert (row["state"], row["attempts"]) == ("queued", attempts)
        now = row["due_at"]
    await notifications.sends(now)

    assert len(notifications.receiver.texts) == 1
    assert await notifications.said("message") == ["message.sent", "message.sent"]


async def test_an_answer_that_got_lost_sends_nothing_twice(notifications: Notifications) -> None:
    await waiting(notifications, now=SOON)
    notifications.receiver.loses_answers = 1

    await notifications.loop("second_channel").send_due()
    await notifications.sends((await row_of(notifications, "second_channel"))["due_at"])

    row = await row_of(notifications, "second_channel")
    assert (len(notifications.receiver.texts), row["state"], row["attempts"]) == (1, "sent", 2)


async def test_what_the_second_channel_refuses_has_failed(notifications: Notifications) -> None:
    await waiting(notifications, now=SOON)
    notifications.receiver.failures = [403]

    await notifications.loop("second_channel").send_due()

    row = await row_of(notifications, "second_channel")
    assert (row["state"], row["reason"]) == ("failed", "http_403: no")


async def test_a_receiver_that_is_away_is_waited_for(notifications: Notifications) -> None:
    away = SecondChannel(f"http://127.0.0.1:{free_port()}/", "", TIMEOUT)
    await waiting(notifications, now=SOON)
    async with notifications.database.transaction() as tx:
        [message] = await take_due(tx, "second_channel", now=SOON, lease=LEASE)

    outcome = await away.send(message)
    await away.rest()

    assert (outcome.verdict, outcome.may_have_gone) == ("later", False)


@pytest.mark.parametrize("why", ["moved", "cancelled", "begun"])
async def test_a_put_off_message_is_not_sent_when_it_has_become_wrong(
    notifications: Notifications, why: str
) -> None:
    anna, meeting = await waiting(notifications, now=SOON)
    notifications.receiver.failures = [503]
    async with notifications.database.transaction() as tx:
        [message] = await take_due(tx, "second_channel", now=SOON, lease=LEASE)
    if why == "moved":  # while it is in hand, so that only the next look can find out
        await notifications.hears(moved(anna, meeting, starts_at=MEETING + DAY))
    elif why == "cancelled":
        await notifications.hears(cancelled(anna, meeting))
    async with notifications.database.transaction() as tx:
        assert await settle(tx, message, Outcome("later", "http_503"), now=SOON)

    await notifications.set_clock(MEETING if why == "begun" else SOON + timedelta(minutes=1))
    await notifications.loop("second_channel").send_due()

    row = await row_of(notifications, "second_channel")
    assert (row["state"], row["reason"], notifications.receiver.texts) == (
        "cancelled",
        "too_late",
        [],
    )


async def test_no_name_and_no_topic_can_add_a_header(notifications: Notifications) -> None:
    evil = [
        ("Анна\r\nBcc: eve@example.test", "Договор"),
        ("Анна", "Договор\r\nBcc: eve@example.test\r\n\r\nтело"),
        ("Анна\u2028Bcc: eve@example.test", "Договор\x85X-Evil: 1\x0bX-Evil: 2"),
    ]
    for name, topic in evil:
        anna = new_id()
        await notifications.hears(
            client(anna, full_name=name), planned(anna, new_id(), topic=topic)
        )

    await notifications.sends(BEFORE)

    assert notifications.post.envelopes == [("baza@example.test", ["anna@example.test"])] * 3
    assert {(mail["Bcc"], mail["X-Evil"]) for mail in notifications.post.mails} == {(None, None)}
    assert not any("\n" in mail["Subject"] for mail in notifications.post.mails)


async def test_an_address_that_is_none_gets_nothing(notifications: Notifications) -> None:
    addresses = [
        "anna@example.test, eve@example.test",
        "anna@example.test\r\nBcc: eve@example.test",
        "Eve <eve@example.test>",
        "eve(comment)@example.test",
        "not an address",
        "анна@example.test",
        "@",
    ]
    for address in addresses:
        anna = new_id()
        await notifications.hears(client(anna, email=address), planned(anna, new_id()))

    await notifications.sends(BEFORE)

    assert notifications.post.mails == []
    states = {(row["state"], row["reason"]) for row in await notifications.deliveries()}
    assert states == {("failed", "address_invalid")}


async def test_a_client_without_an_address_is_written_down(notifications: Notifications) -> None:
    anna = new_id()
    await notifications.hears(
        client(anna, email=None, phones=[], messengers={"telegram": "@anna"}),
        planned(anna, new_id()),
    )

    await notifications.sends(SOON)

    assert (await row_of(notifications, "email"))["reason"] == "no_address"
    assert [to for to, _ in notifications.receiver.texts] == ["telegram:@anna"]
    assert sorted(await notifications.said("message")) == ["message.failed", "message.sent"]


async def test_a_domain_in_other_letters_is_written_to(notifications: Notifications) -> None:
    anna = new_id()
    await notifications.hears(client(anna, email="anna@пример.рф"), planned(anna, new_id()))

    await notifications.sends(BEFORE)

    assert [to for _, to in notifications.post.envelopes] == [["anna@xn--e1afmkfd.xn--p1ai"]]


async def test_a_stop_waits_for_what_is_in_hand(notifications: Notifications) -> None:
    anna = new_id()
    await notifications.hears(client(anna), *(planned(anna, new_id()) for _ in range(40)))
    await notifications.queues(SOON)
    await notifications.set_clock(SOON)

    running = asyncio.create_task(notifications.loop("second_channel").run())
    async with asyncio.timeout(20):
        while not notifications.receiver.texts:
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])

    states = [
        row["state"]
        for row in await notifications.deliveries()
        if row["channel"] == "second_channel"
    ]
    assert set(states) <= {"sent", "queued"}
    assert states.count("sent") == len(notifications.receiver.texts) > 0
