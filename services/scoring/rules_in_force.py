"""Which rule set is in force, drafting another and activating it.

Activating is one transaction: the cuts are taken (from the base, for quintiles), the version before
retires, rules.activated is said. The worker then scores every client under the new version beside
the stream; a client keeps exactly one segment at every moment.
"""

from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared import outbox
from libs.shared.audit import record
from libs.shared.database import Connection
from libs.shared.errors import Conflict, NotFound
from libs.shared.events import RulesActivated
from services.scoring.models import RuleSetVersion
from services.scoring.presets import DEFAULT_RULE_SET
from services.scoring.rfm import Cuts, quintile_bounds
from services.scoring.rules import CurrencyWithoutRate, Rules, RuleSet

ACTIVATION_LOCK = 0x5246  # one activation at a time

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


class BaseIsEmpty(Conflict):
    """Quintiles need purchases in the period; there are none yet."""

    code = "base-is-empty"
    ru = "Для квинтилей нужны покупки за период; их пока нет."


async def rules_in_force(connection: Connection) -> Rules:
    """The rules that hold now, as the connection's transaction sees them."""
    row = await connection.fetchrow(_IN_FORCE)
    if row is None:
        await connection.execute(_KEEP_PRESET.format(body="$1", cuts="$2"), *_preset())
        row = await connection.fetchrow(_IN_FORCE)
    assert row is not None  # noqa: S101  # inserted above, or by another transaction
    return _parsed(row["version"], row["body"], row["cuts"])


@lru_cache(maxsize=32)
def _parsed(version: int, body: str, cuts: str) -> Rules:
    return Rules.of(version, RuleSet.model_validate_json(body), _cuts(orjson.loads(cuts)))


def _cuts(stored: dict[str, list[float]]) -> Cuts:
    return Cuts(
        tuple(stored["recency_days"]), tuple(stored["frequency"]), tuple(stored["monetary_minor"])
    )


async def draft(
    session: AsyncSession, rule_set: RuleSet, *, by: str, now: datetime
) -> RuleSetVersion:
    """Keep a rule set as the next version; nothing changes for any client yet."""
    await session.execute(select(func.pg_advisory_xact_lock(ACTIVATION_LOCK)))
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


async def activate(
    session: AsyncSession, version: int, *, by: str, now: datetime
) -> RuleSetVersion:
    """Put a draft in force.

    Raises:
        RuleSetNotFound, RuleSetNotDraft, BaseIsEmpty: As they say.
        CurrencyWithoutRate: There are purchases in a currency that the draft has no rate for.
    """
    await session.execute(select(func.pg_advisory_xact_lock(ACTIVATION_LOCK)))
    row = await find(session, version)
    if row.status != "draft":
        raise RuleSetNotDraft(version=version, rule_set_status=row.status)
    rule_set = RuleSet.model_validate(row.body)
    await _require_rates(session, rule_set)
    row.cuts = await _cuts_of(session, rule_set, now)
    previous = await session.scalar(
        select(RuleSetVersion).where(RuleSetVersion.status == "active").with_for_update()
    )
    if previous is not None:
        previous.status = "retired"
        await session.flush()  # the unique index allows one active version at a time
    row.status, row.activated_at, row.activated_by = "active", now, by
    await record(
        session,
        action="rules.activated",
        subject_type="rule_set",
        subject_id=str(version),
        details={"previous": previous.version if previous else None},
        at=now,
    )
    await outbox.add(
        session,
        RulesActivated(
            rule_version=version,
            previous_version=previous.version if previous else None,
            activated_by=by,
            occurred_at=now,
        ),
    )
    return row


async def _require_rates(session: AsyncSession, rule_set: RuleSet) -> None:
    known = [rule_set.reporting_currency, *rule_set.exchange_rates]
    missing = await session.scalar(
        text("SELECT currency FROM purchases WHERE currency <> ALL(:known) LIMIT 1"),
        {"known": known},
    )
    if missing is not None:
        raise CurrencyWithoutRate(currency=missing)


_FIGURES = text("""
    WITH rates AS (SELECT * FROM unnest(CAST(:currencies AS text[]), CAST(:rates AS numeric[]))
        AS r (currency, rate))
    SELECT CAST(:today AS date) - max(day) AS recency_days,
        count(DISTINCT day) FILTER (WHERE day > :begin AND NOT is_returned) AS frequency,
        coalesce(sum(round((amount_minor - returned_minor) * rate)) FILTER (WHERE day > :begin), 0)
            AS monetary
    FROM purchases JOIN rates USING (currency)
    GROUP BY client_id HAVING count(*) FILTER (WHERE NOT is_returned) > 0
""")


async def _cuts_of(
    session: AsyncSession, rule_set: RuleSet, now: datetime
) -> dict[str, tuple[float, ...]]:
    if rule_set.method == "fixed":
        return rule_set.fixed_cuts.model_dump()
    rules = Rules.of(0, rule_set, Cuts((), (), ()))
    rows = (
        await session.execute(
            _FIGURES,
            {
                "today": rules.day_of(now),
                "begin": rules.day_of(now) - rules.period,
                "currencies": list(rules.rates),
                "rates": list(rules.rates.values()),
            },
        )
    ).all()
    if not rows:
        raise BaseIsEmpty
    return {
        "recency_days": quintile_bounds([row.recency_days for row in rows], 1),
        "frequency": quintile_bounds([row.frequency for row in rows], 1),
        "monetary_minor": quintile_bounds(
            [float(row.monetary) for row in rows], rule_set.money_step_minor
        ),
    }


async def prepared(session: AsyncSession) -> Rules:
    """The rules in force for a request; the preset is written down first if there are none."""
    row = (await session.execute(_IN_FORCE_ORM)).one_or_none()
    if row is None:
        body, cuts = _preset()
        await session.execute(_KEEP_PRESET_ORM, {"body": body, "cuts": cuts})
        row = (await session.execute(_IN_FORCE_ORM)).one()
    return _parsed(row.version, row.body, row.cuts)
