"""When an offer lapses: so many minutes of the policy's working hours later."""

from datetime import datetime, timedelta

from libs.shared.calendars import NeverOpen
from services.routing.policy import ClaimPolicy


def end_of_window(claims: ClaimPolicy, now: datetime) -> datetime:
    """When an offer made now lapses."""
    return in_working_time(claims, now, claims.claim_window_minutes)


def in_working_time(claims: ClaimPolicy, now: datetime, minutes: int) -> datetime:
    """The instant by which so many minutes of the policy's hours have passed."""
    span = timedelta(minutes=minutes)
    if claims.calendar is None:
        return now + span
    try:
        return claims.calendar.add_working_time(now, span)
    except NeverOpen:  # a calendar without hours must not stop everything
        return now + span
