"""The terms of a moment: what a decision goes by of the policies."""

from datetime import datetime, timedelta

from services.routing.choosing.sitting import Terms
from services.routing.policy import ClaimPolicy, MutingPolicy


def terms_at(claims: ClaimPolicy, muting: MutingPolicy, now: datetime) -> Terms:
    """The terms; a segment that is muted is looked at again after a while."""
    if not muting.periods:
        return _of(claims, ())
    again = now + timedelta(minutes=muting.look_again_minutes)
    muted = tuple(
        (segment, min(period.ends_at, again))
        for period in muting.periods
        if period.begins_at <= now < period.ends_at
        for segment in period.segments
    )
    return _of(claims, muted)


def _of(claims: ClaimPolicy, muted: tuple[tuple[str, datetime], ...]) -> Terms:
    return Terms(
        rounds=claims.rounds,
        most_open_leads=claims.most_open_leads,
        most_offers=claims.most_offers,
        owner_first=claims.returning_client_goes_to_owner,
        muted=muted,
        touches_per_lead=claims.touches_per_lead,
    )
