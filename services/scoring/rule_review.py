"""The rules in force are looked at again every quarter, whether anybody complains or not.

A review ends with other rules, which begin the quarter anew, or with keeping these, which is noted.

Source: requirements S-18.
"""

from datetime import date, datetime, timedelta
from typing import Annotated
from uuid import UUID

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.shared.policies import Policy
from services.scoring.models import Instant, RuleSetVersion
from services.scoring.rules import Rules
from services.scoring.tables import Base


class RuleReviewPolicy(Policy, name="rule-review"):
    """How often the rules are looked at again."""

    every_days: Annotated[int, Field(strict=True, ge=1, le=3660)] = 91


class RuleReview(Base):
    """A review that kept the rules."""

    __tablename__ = "rule_reviews"

    review_id: Mapped[UUID] = mapped_column(primary_key=True)
    rule_version: Mapped[int]
    note: Mapped[str]
    reviewed_at: Mapped[datetime] = mapped_column(Instant)
    reviewed_by: Mapped[str]


async def review_due_on(session: AsyncSession, rules: Rules, policy: RuleReviewPolicy) -> date:
    """The company's day on which the rules in force are to be looked at next."""
    activated_at = await session.scalar(
        select(RuleSetVersion.activated_at).where(RuleSetVersion.version == rules.version)
    )
    reviewed_at = await session.scalar(
        select(func.max(RuleReview.reviewed_at)).where(RuleReview.rule_version == rules.version)
    )
    looked_at = max(at for at in (activated_at, reviewed_at) if at is not None)
    return rules.day_of(looked_at) + timedelta(policy.every_days)
