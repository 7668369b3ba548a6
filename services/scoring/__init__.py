"""scoring: what each client is worth, in which segment they are, and whom to call first.

Owns the purchase history, the RFM rule sets, scores, segments and their history.
Hears deal.closed, deal.reversed, interaction.recorded and interaction.held (all of contacts).
Says segment.changed and rules.activated.
"""
