"""Notifications' background work: hear events, send the outbox, remind, alert, send messages."""

from libs.shared.runtime import Worker, run_worker
from services.notifications.due_reminders import reminder_timer
from services.notifications.mail import Mail
from services.notifications.second_channel import SecondChannel
from services.notifications.sending import sending
from services.notifications.settings import NotificationsSettings
from services.notifications.staff.due_alerts import STAFF_ALERTS
from services.notifications.subscriptions import SUBSCRIPTIONS


def build(settings: NotificationsSettings) -> Worker:
    """The worker with the given settings."""

    def mail() -> Mail:
        return Mail(settings.smtp_url, settings.mail_from, settings.send_timeout)

    def second_channel() -> SecondChannel:
        return SecondChannel(
            str(settings.second_channel_url), settings.second_channel_token, settings.send_timeout
        )

    return Worker(
        "notifications",
        settings,
        SUBSCRIPTIONS,
        timers=(reminder_timer(settings.reschedule_url), STAFF_ALERTS),
        extras=(
            sending("email", mail, settings.send_lease),
            sending("second_channel", second_channel, settings.send_lease),
        ),
    )


if __name__ == "__main__":
    run_worker(build(NotificationsSettings()))
