"""scoring: what each client is worth, in which segment they are, and whom to call first.

Owns the purchase history, the RFM rule sets, scores, segments and their history, flags and
overrides, touches and the queue, audiences, acquisition costs and models of clients' value.
Hears deal.closed, deal.reversed, interaction.recorded, interaction.held, client.*,
lead.received (all of contacts), message.sent and message.opened (notifications).
Says segment.changed, rules.activated, touch.due, touch.overdue, touch.ended, audience.entered and
audience.left.
"""
