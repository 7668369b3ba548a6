"""Putting a rule set in force.

One transaction: the cuts are taken (from the base, for quintiles, or as a preview found them), the
version before retires, rules.activated is said and the change of rules is noted as work to do. The
worker then scores every client under the new version beside the stream (`rule_change.py`); a client
keeps exactly one segment at every moment.
"""

from datetime import datetime
from math import ceil
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared import outbox
from libs.shared.audit import record
from libs.shared.database import Connection, bare
from libs.shared.errors import Conflict, NotFound
from libs.shared.events import RulesActivated
from services.scoring.models import RuleChange, RulePreview, RuleSetVersion
from services.scoring.rating_in_sql import Rating, cuts_of
from services.scoring.rfm import Cuts
from services.scoring.rules import CurrencyWithoutRate, Rules, RuleSet
from services.scoring.rules_in_force import RULES_LOCK, cuts_from, find, rules_in_force, rules_seen

# Then some clients' figures are of one basis and some of another.
_COUNTING = "SELECT EXISTS (SELECT FROM rule_changes WHERE due_at IS NOT NULL AND counts_anew)"

# While boundaries are still written everybody has their segment already.
_UNDER_WAY = """
    SELECT count(*) > 0, count(*) FILTER (WHERE rated_at IS NULL) > 0
    FROM rule_changes WHERE due_at IS NOT NULL
"""


class RuleSetNotDraft(Conflict):
    """Only a draft can be activated; copy this version into a new draft."""

    code = "rule-set-not-draft"
    ru = "Активировать можно только черновик; скопируйте эту версию в новый черновик."


class BaseIsEmpty(Conflict):
    """Quintiles need purchases in the period; there are none yet."""

    code = "base-is-empty"
    ru = "Для квинтилей нужны покупки за период; их пока нет."


class PreviewNotFound(NotFound):
    """There is no such preview of this rule set."""

    code = "preview-not-found"
    ru = "Такого предпросмотра этого набора правил нет."


async def activate(
    session: AsyncSession, version: int, *, by: str, now: datetime, as_previewed: UUID | None = None
) -> RuleSetVersion:
    """Put a draft in force.

    Args:
        as_previewed: Take the cuts that this preview found.

    Raises:
        RuleSetNotFound, RuleSetNotDraft, PreviewNotFound, BaseIsEmpty: As they say.
        CurrencyWithoutRate: There are purchases in a currency that the draft has no rate for.
    """
    await session.execute(select(func.pg_advisory_xact_lock(RULES_LOCK)))
    row = await find(session, version)
    if row.status != "draft":
        raise RuleSetNotDraft(version=version, rule_set_status=row.status)
    rule_set = RuleSet.model_validate(row.body)
    connection = await bare(session)
    if as_previewed is None:
        cuts = await take_cuts(connection, rule_set, now=now)
    else:
        await require_rates(connection, rule_set)
        cuts = await _previewed_cuts(session, version, as_previewed)
    before = await rules_in_force(connection)
    previous = await session.scalar(
        select(RuleSetVersion).where(RuleSetVersion.status == "active").with_for_update()
    )
    if previous is not None:
        previous.status = "retired"
        await session.flush()  # the unique index allows one active version at a time
    row.cuts = stored_cuts(cuts)
    row.status, row.activated_at, row.activated_by = "active", now, by
    session.add(await _change(connection, Rules.of(version, rule_set, cuts), before, now))
    await record(
        session,
        action="rules.activated",
        subject_type="rule_set",
        subject_id=str(version),
        details={"previous": before.version},
        at=now,
    )
    await outbox.add(
        session,
        RulesActivated(
            rule_version=version,
            previous_version=before.version,
            activated_by=by,
            occurred_at=now,
        ),
    )
    return row


def stored_cuts(cuts: Cuts) -> dict[str, list[float]]:
    """Cuts as they are kept with a version."""
    return {
        "recency_days": list(cuts.recency_days),
        "frequency": list(cuts.frequency),
        "monetary_minor": list(cuts.monetary_minor),
    }


async def _change(connection: Connection, rules: Rules, before: Rules, now: datetime) -> RuleChange:
    """What has to be done; all of it, where the change before has not reached everybody yet."""
    is_mixed = await connection.fetchval(_COUNTING)
    is_under_way, is_rating = await connection.fetchrow(_UNDER_WAY)  # type: ignore[misc]  # aggregates
    # A client's next boundary is the next bound: one that was there before is no nearer.
    known_bounds = {ceil(bound) for bound in before.cuts.recency_days}
    bounds = {ceil(bound) for bound in rules.cuts.recency_days}
    return RuleChange(
        version=rules.version,
        counts_anew=is_mixed or rules.basis != before.basis,
        renames=is_rating or rules.segments_by_run != before.segments_by_run,
        comes_nearer=is_under_way or not bounds <= known_bounds,
        state="waiting",
        due_at=now,
        activated_at=now,
        checked=0,
        moved=0,
    )


async def _previewed_cuts(session: AsyncSession, version: int, preview_id: UUID) -> Cuts:
    found = await session.get(RulePreview, preview_id)
    if found is None or found.version != version:
        raise PreviewNotFound(preview_id=str(preview_id))
    return cuts_from(found.cuts)


_KNOWN_CURRENCIES = """
    SELECT array_agg(DISTINCT currency) FROM rule_sets CROSS JOIN LATERAL (
        SELECT body ->> 'reporting_currency'
        UNION ALL SELECT jsonb_object_keys(body -> 'exchange_rates')
    ) AS known (currency) WHERE status <> 'draft' AND currency <> ALL($1::text[])
"""


async def require_rates(connection: Connection, rule_set: RuleSet) -> None:
    """Check that every currency that anything was bought in has a rate.

    A purchase in a currency without a rate is never taken in, so only those that some version in
    force had are looked for.

    Raises:
        CurrencyWithoutRate: As it says.
    """
    suspects = await connection.fetchval(
        _KNOWN_CURRENCIES, [rule_set.reporting_currency, *rule_set.exchange_rates]
    )
    if not suspects:
        return
    missing = await connection.fetchval(
        "SELECT currency FROM purchases WHERE currency = ANY($1::text[]) LIMIT 1", suspects
    )
    if missing is not None:
        raise CurrencyWithoutRate(currency=missing)


async def figures_of(connection: Connection, rating: Rating, now: datetime) -> str:
    """A statement with everybody's figures as of now, read where they are stored."""
    in_force = await rules_seen(connection)
    if rating.rules.basis != in_force.basis or await connection.fetchval(_COUNTING):
        return rating.counted()
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM scores WHERE due_at <= $1)", now):
        return rating.stored()
    instant = rating.add(now, "timestamptz")
    stored = rating.stored(f"(due_at IS NULL OR due_at > {instant})")
    is_due = f"due_at <= {instant}"
    whose = f"client_id IN (SELECT client_id FROM scores WHERE {is_due})"
    return f"{stored} UNION ALL {rating.counted(is_due, whose)}"


async def take_cuts(connection: Connection, rule_set: RuleSet, *, now: datetime) -> Cuts:
    """The cuts that activating a rule set at this moment gives it.

    Raises:
        BaseIsEmpty: It wants quintiles and there are no purchases.
        CurrencyWithoutRate: There are purchases in a currency that it has no rate for.
    """
    await require_rates(connection, rule_set)
    rules = Rules.of(0, rule_set, Cuts((), (), ()))
    rating = Rating(rules, rules.day_of(now))
    figures = await figures_of(connection, rating, now)
    cuts = await cuts_of(connection, rule_set, rating, figures)
    if cuts is None:
        raise BaseIsEmpty
    return cuts
