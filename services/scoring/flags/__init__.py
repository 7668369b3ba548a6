"""Flags: a manager says that a client's segment is wrong, and the analyst settles it.

Flags are gathered by rule version and segment (`gathering.py`), show which shift of a bound would
settle most of them and whom else it would move (`proposals.py`), and end with a decision: the
rules are changed, the clients overridden for a time, or the flags rejected (`deciding.py`).
"""
