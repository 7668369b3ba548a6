"""A database of before staff were told anything comes through the upgrade with all it had."""

from datetime import timedelta

import asyncpg

from libs.shared.ids import new_id
from services.notifications.sending import take_due
from tests.conftest import PLUMBING, FreshDatabase
from tests.notifications.conftest import HALF_HOUR, LEASE, MEETING
from tests.upgrades import upgraded


async def test_a_message_that_was_queued_before_is_sent_after(
    fresh_database: FreshDatabase,
) -> None:
    url = await fresh_database(PLUMBING)
    connection = await asyncpg.connect(url)
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await upgraded(url, "notifications", "0002")
    meeting, anna, reminder, message = (new_id() for _ in range(4))
    soon = MEETING - HALF_HOUR
    await connection.execute(
        "INSERT INTO meetings (interaction_id, client_id, version, state, kind, starts_at)"
        " VALUES ($1, $2, 1, 'planned', 'meeting', $3)",
        *(meeting, anna, MEETING),
    )
    await connection.execute(
        "INSERT INTO deliveries (message_id, reminder_id, client_id, interaction_id,"
        " interaction_version, channel, template, template_version, language, address, subject,"
        " body, state, due_at, created_at)"
        " VALUES ($1, $2, $3, $4, 1, 'email', 'meeting_reminder', 1, 'ru', 'anna@example.test',"
        " 'Тема', 'Текст', 'queued', $5, $5)",
        *(message, reminder, anna, meeting, soon),
    )

    await upgraded(url, "notifications", "head")

    async with connection.transaction():
        [taken] = await take_due(connection, "email", now=soon + timedelta(seconds=1), lease=LEASE)
    await connection.close()
    assert (taken.message_id, taken.body) == (message, "Текст")
    assert taken.reminded is not None
    assert tuple(taken.reminded) == (reminder, anna, meeting, 1)
