"""routing: every lead gets exactly one manager, the right one, and moves on when nobody takes it.

Owns the leads in flight, the managers with their shifts and teams, the distribution rules, offers,
claims, and the record of every decision.
Hears lead.received (contacts), segment.changed and touch.* (scoring).
Says lead.assigned, lead.claimed, lead.unclaimed, lead.unanswered, lead.released, lead.escalated,
lead.converted and lead.closed.
"""
