"""Third story: reminders for a meeting, for one that is moved, and none for a cancelled one."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from deploy.local.demo.doors import Doors, until

TOPIC_KEPT = "Подписание договора"
TOPIC_MOVED = "Показ каталога"
TOPIC_CANCELLED = "Обсуждение скидки"
DAY = timedelta(hours=24)
HALF_HOUR = timedelta(minutes=30)


@dataclass(slots=True)
class ReminderFacts:
    """What the third story found out."""

    email: int = 0
    second_channel: int = 0
    for_cancelled: int = 0
    sent_at_the_old_time: int = 0

    def report(self) -> dict[str, int]:
        """The members that report.json names."""
        return {
            "email": self.email,
            "second_channel": self.second_channel,
            "for_cancelled": self.for_cancelled,
        }


async def play(doors: Doors, client_id: str, say: Any) -> ReminderFacts:
    """Play the story with a client who has an e-mail address and gets a phone number."""
    facts = ReminderFacts()
    now = await doors.now()
    meeting = (now + timedelta(days=2)).replace(minute=0, second=0, microsecond=0)
    await give_phone(doors, client_id)
    say("three meetings are planned for the day after tomorrow; one is moved, one cancelled")
    await plan(doors, client_id, meeting, TOPIC_KEPT)
    moved = await plan(doors, client_id, meeting + timedelta(hours=1), TOPIC_MOVED)
    new_time = meeting + timedelta(days=1)
    await act(doors, moved, "move", {"starts_at": new_time.isoformat(), "reason": "просьба"})
    cancelled = await plan(doors, client_id, meeting + timedelta(hours=2), TOPIC_CANCELLED)
    await act(doors, cancelled, "cancel", {"reason": "клиент заболел"})
    await reminders_stand(doors, client_id)

    say("24 hours before: a mail; 30 minutes before: the second channel")
    await go_to(doors, meeting - DAY + timedelta(minutes=1))
    await until("the mail", received(doors, mails=1, texts=0))
    await go_to(doors, meeting - HALF_HOUR + timedelta(minutes=1))
    await until("the text message", received(doors, mails=1, texts=1))
    say("past the old time of the moved meeting, up to its new one")
    await go_to(doors, meeting + timedelta(hours=3))
    facts.sent_at_the_old_time = (await counts(doors, TOPIC_MOVED, texts=True))[1]
    await go_to(doors, new_time - HALF_HOUR + timedelta(minutes=1))
    await until("the moved meeting's reminders", received(doors, mails=2, texts=2))
    await go_to(doors, new_time + timedelta(hours=3))
    facts.email, facts.second_channel = await counts(doors, "", texts=True)
    facts.for_cancelled = sum(await counts(doors, TOPIC_CANCELLED, texts=True))
    return facts


async def give_phone(doors: Doors, client_id: str) -> None:
    card = await doors.call("GET", "contacts", f"/v1/clients/{client_id}")
    await doors.call(
        "PATCH",
        "contacts",
        f"/v1/clients/{client_id}",
        {"phones": ["8 (921) 555-12-34"]},
        headers={"If-Match": f'"{card["version"]}"'},
    )


async def plan(doors: Doors, client_id: str, starts_at: datetime, topic: str) -> dict[str, Any]:
    planned: dict[str, Any] = await doors.call(
        "POST",
        "contacts",
        f"/v1/clients/{client_id}/interactions/plan",
        {"kind": "meeting", "starts_at": starts_at.isoformat(), "topic": topic},
    )
    return planned


async def act(doors: Doors, interaction: dict[str, Any], verb: str, body: dict[str, Any]) -> None:
    await doors.call(
        "POST",
        "contacts",
        f"/v1/interactions/{interaction['id']}/{verb}",
        body,
        headers={"If-Match": f'"{interaction["version"]}"'},
    )


async def reminders_stand(doors: Doors, client_id: str) -> None:
    """Wait until notifications has heard of all three meetings and their changes."""
    path = f"/v1/reminders?client_id={client_id}&state="

    async def stand() -> bool:
        planned = await doors.call("GET", "notifications", path + "planned")
        cancelled = await doors.call("GET", "notifications", path + "cancelled")
        return len(planned["items"]) == 4 and len(cancelled["items"]) == 4

    await until("four reminders planned, four cancelled", stand)


async def go_to(doors: Doors, moment: datetime) -> None:
    await doors.advance(moment - await doors.now())


def received(doors: Doors, *, mails: int, texts: int) -> Any:
    async def check() -> bool:
        return await counts(doors, "", texts=True) == (mails, texts)

    return check


async def counts(doors: Doors, topic: str, *, texts: bool) -> tuple[int, int]:
    """Mails and text messages that mention a topic."""
    mails = await doors.outside("/mail.json")
    messages = await doors.outside("/second-channel/messages.json") if texts else []
    return (
        sum(topic in mail["text"] or topic in mail["subject"] for mail in mails),
        sum(topic in message["text"] for message in messages),
    )
