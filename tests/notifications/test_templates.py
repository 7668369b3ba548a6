"""A template that does not come out whole is refused, when it is kept and when it is sent."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.shared.errors import PreconditionFailed
from libs.shared.ids import new_id
from services.notifications.default_templates import SHIPPED, TemplateKey, Text
from services.notifications.reminder_policy import SendingPolicy
from services.notifications.rendering import (
    SAMPLE,
    TemplateRefused,
    check,
    in_words,
    render,
    single_line,
)
from services.notifications.templates import write
from tests.notifications.conftest import DAY, MEETING, MONDAY, Notifications, client, planned

MAIL = TemplateKey("meeting_reminder", "email", "ru")
FOR_CLIENTS = [key for key in SHIPPED if not key.code.startswith("staff_")]


@pytest.mark.parametrize("key", SHIPPED, ids="/".join)
def test_what_is_shipped_is_whole(key: TemplateKey) -> None:
    check(SHIPPED[key], channel=key.channel, code=key.code)


@pytest.mark.parametrize("key", FOR_CLIENTS, ids="/".join)
def test_a_message_to_a_client_is_whole_without_a_link(key: TemplateKey) -> None:
    without = render(SHIPPED[key], SAMPLE | {"reschedule_link": ""}, channel=key.channel)

    assert SAMPLE["reschedule_link"] not in without.body
    assert SAMPLE["topic"] in without.body


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("Здравствуйте, {{ name }}", "unknown_variable"),
        ("Здравствуйте, [Имя]!", "placeholder_left"),
        ("Здравствуйте, [client name]!", "placeholder_left"),
        ("Здравствуйте, {client_name}!", "placeholder_left"),
        ("{% raw %}{{ client_name }}{% endraw %}", "placeholder_left"),
        ("{{ client_name", "broken"),
        ("{% if topic %}", "broken"),
        ("{{ topic | shout }}", "broken"),
        ("{% include 'other' %}", "broken"),
        ("   ", "empty"),
        ("{{ topic }}" * 2000, "too_long"),
        (
            "{% for i in (1..100000) %}{% for j in (1..100000) %}{% endfor %}{% endfor %}",
            "too_long",
        ),
    ],
)
def test_a_template_that_cannot_come_out_whole_is_refused(body: str, reason: str) -> None:
    with pytest.raises(TemplateRefused) as refused:
        check(Text("Тема", body), channel="email")

    assert refused.value.reason.startswith(reason)


@pytest.mark.parametrize(
    ("code", "body"),
    [("staff_any", "{{ client_name }}"), ("meeting_reminder", "{{ recipient_name }}")],
)
def test_staff_and_clients_have_variables_of_their_own(code: str, body: str) -> None:
    with pytest.raises(TemplateRefused) as refused:
        check(Text("Тема", body), channel="email", code=code)

    assert refused.value.reason.startswith("unknown_variable")


@pytest.mark.parametrize("missing", ["client_name", "topic", "starts_at"])
def test_a_variable_without_a_value_refuses_the_message(missing: str) -> None:
    with pytest.raises(TemplateRefused) as refused:
        render(SHIPPED[MAIL], SAMPLE | {missing: " "}, channel="email")

    assert refused.value.reason.startswith("unresolved_variable")


@pytest.mark.parametrize("value", ["[Тема]", "{{ client_name }}", "{% if x %}", "{имя}"])
def test_a_placeholder_that_comes_with_a_value_refuses_the_message(value: str) -> None:
    with pytest.raises(TemplateRefused) as refused:
        render(SHIPPED[MAIL], SAMPLE | {"topic": value}, channel="email")

    assert refused.value.reason.startswith("placeholder_left")


@given(st.text(max_size=60))
def test_a_single_line_is_one_line(text: str) -> None:
    line = single_line(text)

    assert len(line.splitlines()) <= 1
    assert line.isprintable() or not any(ord(letter) < 32 for letter in line)
    assert single_line(line) == line


@given(st.dictionaries(st.sampled_from(sorted(SAMPLE)), st.text(max_size=40)))
def test_whatever_the_values_nothing_unresolved_comes_out(changes: dict[str, str]) -> None:
    try:
        made = render(SHIPPED[MAIL], SAMPLE | changes, channel="email")
    except TemplateRefused:
        return
    assert "{{" not in made.subject + made.body
    assert "\n" not in made.subject
    assert made.subject


@pytest.mark.parametrize(
    ("language", "zone", "words"),
    [
        ("ru", "Europe/Moscow", "среда, 4 марта 2026 г. в 12:00 (Москва)"),
        ("ru", "Asia/Vladivostok", "среда, 4 марта 2026 г. в 19:00"),
        ("en", "Europe/Moscow", "Wednesday, 4 March 2026, 12:00"),
        ("zz", "Europe/Moscow", "Wednesday, 4 March 2026, 12:00"),
    ],
)
def test_instants_are_told_in_words(language: str, zone: str, words: str) -> None:
    assert in_words(datetime(2026, 3, 4, 9, tzinfo=UTC), zone, language).startswith(words)


def test_waits_double_up_to_the_longest() -> None:
    policy = SendingPolicy()

    assert [policy.wait_seconds(attempts) for attempts in (1, 2, 3, 7, 100)] == [
        5,
        10,
        20,
        300,
        300,
    ]


async def test_a_refused_text_sends_nothing_and_says_so(notifications: Notifications) -> None:
    anna = new_id()
    await notifications.hears(client(anna), planned(anna, new_id(), topic="[Тема встречи]"))

    await notifications.sends(MEETING - DAY)

    [row] = await notifications.deliveries()
    assert notifications.post.mails == []
    assert (row["state"], row["body"], row["attempts"]) == ("failed", "", 0)
    assert row["reason"].startswith("placeholder_left")
    assert await notifications.said("message") == ["message.failed"]


async def test_a_meeting_without_a_topic_is_called_what_it_is(
    notifications: Notifications,
) -> None:
    anna = new_id()
    await notifications.hears(client(anna), planned(anna, new_id(), topic="", kind="call"))

    await notifications.sends(MEETING - DAY)

    assert [mail["Subject"] for mail in notifications.post.mails] == ["Напоминание: Звонок"]


async def test_the_companys_own_text_goes_out_from_the_next_message_on(
    notifications: Notifications,
) -> None:
    anna = new_id()
    async with notifications.database.session() as session:
        made = await write(
            session, MAIL, Text("Ждём вас", "{{ topic }}"), expected=1, by="ann", at=MONDAY
        )
    await notifications.hears(client(anna), planned(anna, new_id()))

    await notifications.sends(MEETING - DAY)

    [row] = await notifications.deliveries()
    assert (made.version, row["template_version"]) == (2, 2)
    assert [mail["Subject"] for mail in notifications.post.mails] == ["Ждём вас"]


async def test_the_clients_language_is_used_where_there_is_a_text(
    notifications: Notifications,
) -> None:
    john, jean = new_id(), new_id()
    await notifications.hears(
        client(john, language="en-GB", email="john@example.test"),
        client(jean, language="fr", email="jean@example.test"),
        planned(john, new_id()),
        planned(jean, new_id()),
    )

    await notifications.sends(MEETING - DAY)

    subjects = {mail["To"]: mail["Subject"].partition(":")[0] for mail in notifications.post.mails}
    assert subjects == {"john@example.test": "Reminder", "jean@example.test": "Напоминание"}


async def test_of_two_changes_from_the_same_version_one_is_refused(
    notifications: Notifications,
) -> None:
    async with notifications.database.session() as session:
        await write(session, MAIL, Text("А", "{{ topic }}"), expected=1, by="ann", at=MONDAY)

    with pytest.raises(PreconditionFailed):
        async with notifications.database.session() as session:
            await write(session, MAIL, Text("Б", "{{ topic }}"), expected=1, by="ben", at=MONDAY)
