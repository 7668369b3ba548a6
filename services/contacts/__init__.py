"""contacts: who the clients are, what was said and promised, what they bought, who asks for us.

Owns client cards, interactions and promises, deals, leads and the webhook requests they come by.
Hears lead.* (of routing), segment.changed (of scoring) and message.* (of notifications).
Says client.*, interaction.*, deal.* and lead.received.
"""
