"""notifications: reminders of meetings and calls, and the ledger of what was sent.

Owns reminder policies, templates, reminders, deliveries, and copies of cards and meetings.
Hears client.created, client.changed and interaction.planned, moved, cancelled, held (of contacts).
Says reminder.scheduled, reminder.cancelled, message.sent and message.failed.
"""
