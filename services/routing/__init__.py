"""routing: every lead gets exactly one manager, and moves on when nobody takes it.

Owns the leads in flight, the managers with their shifts, offers and claims.
Hears lead.received (contacts).
Says lead.assigned, lead.claimed, lead.unclaimed, lead.released and lead.escalated.
"""
