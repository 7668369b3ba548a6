"""Raising flags, and what the analyst sees of them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared.errors import Invalid
from libs.shared.ids import new_id
from services.scoring.flags.models import SegmentFlag
from services.scoring.flags.policy import FlagPolicy
from services.scoring.flags.proposals import Flagged
from services.scoring.models import Score
from services.scoring.rfm import Figures
from services.scoring.rules import Rules

MOST_FLAGS = 2000  # that proposals are made from; the newest
WEEK = timedelta(days=7)

_GATHERED = text("""
    SELECT rule_version, segment, should_be, count(*) AS flags,
        count(DISTINCT raised_by) AS managers, sum(monetary_minor)::bigint AS monetary_minor,
        min(raised_at) AS oldest_at, array_agg(DISTINCT reason) AS reasons
    FROM segment_flags WHERE decision_id IS NULL
    GROUP BY rule_version, segment, should_be ORDER BY flags DESC, segment, should_be
""")


class ReasonUnknown(Invalid):
    """There is no such reason; the policy `flags` lists them."""

    code = "flag-reason-unknown"
    ru = "Такой причины нет; список причин в политике flags."


class SegmentUnknown(Invalid):
    """The rules in force have no segment of this name."""

    code = "segment-unknown"
    ru = "В действующих правилах нет сегмента с таким именем."


class SegmentIsThat(Invalid):
    """The client is in this very segment."""

    code = "segment-is-that"
    ru = "Клиент и так в этом сегменте."


class Gathered(BaseModel):
    """Open flags of one rule version that say the same."""

    rule_version: int
    segment: str
    should_be: str | None
    flags: int
    managers: int
    monetary_minor: int
    oldest_at: datetime
    reasons: list[str]


async def raise_flag(
    session: AsyncSession,
    score: Score,
    rules: Rules,
    policy: FlagPolicy,
    *,
    by: UUID | None,
    reason: str,
    should_be: str | None,
    note: str,
    now: datetime,
) -> SegmentFlag:
    """Call a client's segment wrong; who does so again before a decision changes their flag.

    Raises:
        ReasonUnknown, SegmentUnknown, SegmentIsThat: As they say.
    """
    if reason not in policy.reasons:
        raise ReasonUnknown(pointer="/reason", known=sorted(policy.reasons))
    if should_be is not None and should_be not in rules.names:
        raise SegmentUnknown(pointer="/should_be", known=sorted(rules.names))
    if should_be is not None and should_be == score.segment:
        raise SegmentIsThat(pointer="/should_be")
    said = {"reason": reason, "should_be": should_be, "note": note}
    insertion = insert(SegmentFlag).values(
        flag_id=new_id(),
        client_id=score.client_id,
        raised_by=by,
        raised_at=now,
        segment=score.segment,
        rule_version=rules.version,
        recency_days=(rules.day_of(now) - score.last_day).days if score.last_day else 0,
        frequency=score.frequency,
        monetary_minor=score.monetary_minor,
        **said,
    )
    flag: SegmentFlag | None = await session.scalar(
        insertion.on_conflict_do_update(
            index_elements=["client_id", "raised_by"],
            index_where=text("decision_id IS NULL"),
            set_=said,
        ).returning(SegmentFlag)
    )
    assert flag is not None  # noqa: S101  # inserted or updated
    return flag


async def gathered(session: AsyncSession) -> list[Gathered]:
    """Open flags, those that most agree on first."""
    rows = await session.execute(_GATHERED)
    return [Gathered.model_validate(row, from_attributes=True) for row in rows]


async def disputed(session: AsyncSession, rules: Rules) -> Sequence[Flagged]:
    """Open flags against the rules in force, as proposals are made from them."""
    query = (
        select(SegmentFlag)
        .where(SegmentFlag.decision_id.is_(None), SegmentFlag.rule_version == rules.version)
        .order_by(SegmentFlag.raised_at.desc())
        .limit(MOST_FLAGS)
    )
    return [
        Flagged(
            Figures(flag.recency_days, flag.frequency, flag.monetary_minor),
            flag.segment,
            flag.should_be,
        )
        for flag in await session.scalars(query)
    ]
