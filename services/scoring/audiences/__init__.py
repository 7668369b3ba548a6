"""Audiences: clients who have something in common at this moment, whatever has changed it.

An audience is a condition over scores, card and touches. Who begins or ceases to fulfil it enters
or leaves, which is said as an event: after a purchase, a touch, a change of the card or of the
rules, and by the passing of days.
"""
