"""Which rule set is in force, and drafting another; `activation.py` puts it in force."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import asyncpg
import orjson
from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared.database import Connection
from libs.shared.errors import Conflict, NotFound
from services.scoring.models import RuleChange, RuleSetVersion
from services.scoring.presets import DEFAULT_RULE_SET
from services.scoring.rfm import Cuts
from services.scoring.rules import Rules, RuleSet

RULES_LOCK = 0x5246  # one draft or activation at a time

_IN_FORCE = "SELECT version, body::text, cuts::text FROM rule_sets WHERE status = 'active'"
_IN_FORCE_ORM = text(
    "SELECT version, CAST(body AS text) AS body, CAST(cuts AS text) AS cuts FROM rule_sets"
    " WHERE status = 'active'"
)


# Version 1 is there from the beginning of time: no request and no event makes it.
_KEEP_PRESET = """
    INSERT INTO rule_sets (version, status, body, cuts, created_at, created_by, activated_at,
        activated_by)
    VALUES (1, 'active', {body}, {cuts}, 'epoch', 'baza', 'epoch', 'baza') ON CONFLICT DO NOTHING
"""
_KEEP_PRESET_ORM = text(_KEEP_PRESET.format(body=":body", cuts=":cuts")).bindparams(
    bindparam("body", type_=JSONB), bindparam("cuts", type_=JSONB)
)


def _preset() -> tuple[dict[str, Any], dict[str, Any]]:
    body = DEFAULT_RULE_SET.model_dump(mode="json")
    return body, DEFAULT_RULE_SET.fixed_cuts.model_dump(mode="json")


class RuleSetNotFound(NotFound):
    """There is no rule set of this version."""

    code = "rule-set-not-found"
    ru = "Набора правил с такой версией нет."


class RuleSetNotDraft(Conflict):
    """Only a draft can be activated; copy this version into a new draft."""

    code = "rule-set-not-draft"
    ru = "Активировать можно только черновик; скопируйте эту версию в новый черновик."


async def rules_in_force(connection: Connection) -> Rules:
    """The rules that hold now, as the connection's transaction sees them."""
    row = await connection.fetchrow(_IN_FORCE)
    if row is None:
        await connection.execute(_KEEP_PRESET.format(body="$1", cuts="$2"), *_preset())
        row = await connection.fetchrow(_IN_FORCE)
    assert row is not None  # noqa: S101  # inserted above, or by another transaction
    return _parsed(row["version"], row["body"], row["cuts"])


RULES_TEXTS = """
    (SELECT ARRAY[version::text, body::text, cuts::text] FROM rule_sets WHERE status = 'active')
"""
"""`Rules.texts` of those in force as a part of a statement; `rules_of_texts` makes rules of it."""


def rules_of_texts(texts: Sequence[str]) -> Rules:
    """What `RULES_TEXTS` found, as rules."""
    version, body, cuts = texts
    return _parsed(int(version), body, cuts)


async def rules_seen(connection: Connection) -> Rules:
    """The same without writing anything, for transactions that only read."""
    return _rules_of(await connection.fetchrow(_IN_FORCE))


async def rules_at(connection: Connection, moment: datetime) -> Rules:
    """The rules that were in force at a moment; before anything was activated, the preset."""
    return _rules_of(
        await connection.fetchrow(
            "SELECT version, body::text, cuts::text FROM rule_sets WHERE activated_at <= $1"
            " ORDER BY activated_at DESC, version DESC LIMIT 1",
            moment,
        )
    )


def _rules_of(row: asyncpg.Record | None) -> Rules:
    if row is None:
        cuts = cuts_from(DEFAULT_RULE_SET.fixed_cuts.model_dump())
        return Rules.of(1, DEFAULT_RULE_SET, cuts)
    return _parsed(row["version"], row["body"], row["cuts"])


@lru_cache(maxsize=32)
def _parsed(version: int, body: str, cuts: str) -> Rules:
    rule_set, texts = RuleSet.model_validate_json(body), (str(version), body, cuts)
    return Rules.of(version, rule_set, cuts_from(orjson.loads(cuts)), texts)


def cuts_from(stored: Mapping[str, Sequence[float]]) -> Cuts:
    """Cuts as they were kept with a version."""
    return Cuts(
        tuple(stored["recency_days"]), tuple(stored["frequency"]), tuple(stored["monetary_minor"])
    )


async def draft(
    session: AsyncSession, rule_set: RuleSet, *, by: str, now: datetime
) -> RuleSetVersion:
    """Keep a rule set as the next version; nothing changes for any client yet."""
    await session.execute(select(func.pg_advisory_xact_lock(RULES_LOCK)))
    newest = await session.scalar(select(func.max(RuleSetVersion.version)))
    row = RuleSetVersion(
        version=(newest or 1) + 1,  # version 1 is the preset
        status="draft",
        body=rule_set.model_dump(mode="json"),
        cuts=None,
        created_at=now,
        created_by=by,
    )
    session.add(row)
    await session.flush()
    return row


async def find(session: AsyncSession, version: int) -> RuleSetVersion:
    """A version of the rules.

    Raises:
        RuleSetNotFound: No such version.
    """
    row = await session.get(RuleSetVersion, version, with_for_update=True)
    if row is None:
        raise RuleSetNotFound(version=version)
    return row


async def prepared(session: AsyncSession) -> Rules:
    """The rules in force for a request; the preset is written down first if there are none."""
    row = (await session.execute(_IN_FORCE_ORM)).one_or_none()
    if row is None:
        body, cuts = _preset()
        await session.execute(_KEEP_PRESET_ORM, {"body": body, "cuts": cuts})
        row = (await session.execute(_IN_FORCE_ORM)).one()
    return _parsed(row.version, row.body, row.cuts)


async def change_under_way(session: AsyncSession) -> RuleChange | None:
    """The change of rules under which not everybody is rated yet."""
    query = select(RuleChange).where(RuleChange.due_at.is_not(None), RuleChange.rated_at.is_(None))
    return await session.scalar(query.order_by(RuleChange.version.desc()).limit(1))
