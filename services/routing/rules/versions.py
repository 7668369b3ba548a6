"""Versions of the distribution rules: drafting, looking for faults, putting one in force.

A version never changes once it is in force; every decision names the one it was made by. Version 1
is there from the beginning: everybody in turn.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.shared import audit
from libs.shared.errors import Conflict, Invalid, NotFound
from services.routing.choosing.rule_set import EVERYBODY, RuleSet
from services.routing.tables import Base

LOCK = text("SELECT pg_advisory_xact_lock(hashtext('rule_sets'))")
Instant = TIMESTAMP(timezone=True)


class RuleSetVersion(Base):
    """A version of the rules."""

    __tablename__ = "rule_sets"

    version: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]  # draft, active, retired
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)
    note: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(Instant)
    created_by: Mapped[str]
    activated_at: Mapped[datetime | None] = mapped_column(Instant)
    activated_by: Mapped[str | None]


class Team(Base):
    """A group of managers that rules can name."""

    __tablename__ = "teams"

    team: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(Instant)


class TeamMember(Base):
    """Who is in it."""

    __tablename__ = "team_members"

    team: Mapped[str] = mapped_column(primary_key=True)
    manager_id: Mapped[UUID] = mapped_column(primary_key=True)


class RuleSetNotFound(NotFound):
    """There is no version of the rules with this number."""

    code = "rule-set-not-found"
    ru = "Версии правил с таким номером нет."


class RuleSetNotDraft(Conflict):
    """Only a draft can be put in force; draft the older version anew."""

    code = "rule-set-not-draft"
    ru = "Ввести в действие можно только черновик; создайте из старой версии новый."


class TeamUnknown(Invalid):
    """A rule names a team that there is not."""

    code = "team-unknown"
    ru = "Правило называет команду, которой нет."


async def draft(
    session: AsyncSession, rule_set: RuleSet, *, note: str | None, by: str, now: datetime
) -> RuleSetVersion:
    """Keep rules as the next version; nothing is decided by them yet.

    Raises:
        TeamUnknown: With a pointer to the rule.
    """
    await session.execute(LOCK)
    await demand_teams(session, rule_set)
    newest = await session.scalar(select(func.max(RuleSetVersion.version)))
    row = RuleSetVersion(
        version=(newest or 0) + 1,
        status="draft",
        body=rule_set.model_dump(mode="json"),
        note=note,
        created_at=now,
        created_by=by,
    )
    session.add(row)
    await session.flush()
    await _note(session, "rule_set.drafted", row, now, by)
    return row


async def activate(
    session: AsyncSession, version: int, *, by: str, now: datetime
) -> RuleSetVersion:
    """Put a draft in force: every decision from now on goes by it.

    Raises:
        RuleSetNotFound, RuleSetNotDraft, TeamUnknown: As they say.
    """
    await session.execute(LOCK)
    row = await find(session, version)
    if row.status != "draft":
        raise RuleSetNotDraft(version=version, rule_set_status=row.status)
    await demand_teams(session, RuleSet.model_validate(row.body))
    before = await session.scalar(select(RuleSetVersion).where(RuleSetVersion.status == "active"))
    if before is not None:
        before.status = "retired"
        await session.flush()  # one is active at a time
    row.status, row.activated_at, row.activated_by = "active", now, by
    await session.flush()
    await _note(session, "rule_set.activated", row, now, by)
    return row


async def find(session: AsyncSession, version: int) -> RuleSetVersion:
    """A version.

    Raises:
        RuleSetNotFound: No such version.
    """
    row = await session.get(RuleSetVersion, version) if 0 < version < 2**31 else None
    if row is None:
        raise RuleSetNotFound(version=version)
    return row


async def active(session: AsyncSession) -> RuleSetVersion:
    """The version in force; there is always one."""
    return (
        await session.scalars(select(RuleSetVersion).where(RuleSetVersion.status == "active"))
    ).one()


async def demand_teams(session: AsyncSession, rule_set: RuleSet) -> None:
    """Check that every team exists.

    Raises:
        TeamUnknown: With a pointer to the first that does not.
    """
    named = rule_set.teams()
    known = set(await session.scalars(select(Team.team).where(Team.team.in_(named))))
    for team, pointer in named.items():
        if team != EVERYBODY and team not in known:
            raise TeamUnknown(pointer=pointer, team=team)


def hints(rule_set: RuleSet, members: dict[str, int]) -> list[str]:
    """What a supervisor should look at before putting rules in force, in Russian.

    Args:
        members: Active managers of each team.
    """
    found = [
        f"Правило «{rule_set.rules[later].name}» никогда не сработает: всё, что ему подходит, "
        f"забирает правило «{rule_set.rules[earlier].name}» выше."
        for later, earlier in rule_set.shadowed()
    ]
    return found + [
        f"В команде «{team}» нет ни одного работающего менеджера."
        for team in rule_set.teams()
        if team != EVERYBODY and not members.get(team)
    ]


async def members_of(session: AsyncSession, teams: Sequence[str]) -> dict[str, int]:
    """How many active managers each team has."""
    rows = await session.execute(
        text(
            "SELECT team, count(*) FROM team_members JOIN managers USING (manager_id)"
            " WHERE is_active AND team = ANY(:teams) GROUP BY team"
        ),
        {"teams": list(teams)},
    )
    return {row[0]: row[1] for row in rows}


async def _note(
    session: AsyncSession, action: str, row: RuleSetVersion, now: datetime, by: str
) -> None:
    await audit.record(
        session,
        action=action,
        subject_type="rule_set",
        subject_id=str(row.version),
        at=now,
        actor=by,
    )
