"""notifications: reminders of meetings and calls, alerts of staff, the ledger of what was sent.

Owns policies, templates, reminders, the directory of staff, alerts, deliveries, and copies of cards
and meetings. Hears client.created, client.changed, interaction.planned, moved, cancelled, held (of
contacts), lead.unanswered, claimed, converted, closed (of routing) and touch.* (of scoring).
Says reminder.scheduled, reminder.cancelled, message.sent, message.failed and message.opened.
"""
