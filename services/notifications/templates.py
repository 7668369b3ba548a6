"""Templates in force and their versions.

What Baza ships is version 1; each change by the company is the next version, kept for ever. A
template is looked for in the client's language, then in the company's, then in Russian.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select, text, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared import audit
from libs.shared.database import Connection
from libs.shared.errors import NotFound, PreconditionFailed
from services.notifications.default_templates import SHIPPED, TemplateKey, Text
from services.notifications.models import TemplateVersion
from services.notifications.rendering import check

SHIPPED_VERSION = 1
LAST_RESORT = "ru"

_IN_FORCE = """
    SELECT DISTINCT ON (code, channel, language) code, channel, language, version, subject, body
    FROM templates WHERE code = ANY($1::text[])
    ORDER BY code, channel, language, version DESC
"""
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('template'), hashtext(:key))")


class TemplateInForce(NamedTuple):
    """A template as it is used now."""

    key: TemplateKey
    version: int
    text: Text
    changed_at: datetime | None = None
    changed_by: str | None = None


class TemplateNotFound(NotFound):
    """There is no such template in this channel and language."""

    code = "template-not-found"
    ru = "Такого шаблона для этого канала и языка нет."


async def in_force(tx: Connection, codes: Sequence[str]) -> dict[TemplateKey, TemplateInForce]:
    """The templates with these codes, in all channels and languages."""
    found = {
        key: TemplateInForce(key, SHIPPED_VERSION, shipped)
        for key, shipped in SHIPPED.items()
        if key.code in codes
    }
    for row in await tx.fetch(_IN_FORCE, list(codes)):
        key = TemplateKey(row["code"], row["channel"], row["language"])
        found[key] = TemplateInForce(key, row["version"], Text(row["subject"], row["body"]))
    return found


def for_language(
    templates: Mapping[TemplateKey, TemplateInForce],
    code: str,
    channel: str,
    wanted: Sequence[str | None],
) -> TemplateInForce | None:
    """The template in the first of the wanted languages that there is one in."""
    for language in (*wanted, LAST_RESORT):
        if language is None:
            continue
        key = TemplateKey(code, channel, language.lower().replace("_", "-").partition("-")[0])
        if key in templates:
            return templates[key]
    return None


async def all_in_force(session: AsyncSession) -> list[TemplateInForce]:
    """Every template, ordered by code, channel and language."""
    rows = await session.scalars(
        select(TemplateVersion)
        .ext(distinct_on(TemplateVersion.code, TemplateVersion.channel, TemplateVersion.language))
        .order_by(
            TemplateVersion.code,
            TemplateVersion.channel,
            TemplateVersion.language,
            TemplateVersion.version.desc(),
        )
    )
    found = {
        key: TemplateInForce(key, SHIPPED_VERSION, shipped) for key, shipped in SHIPPED.items()
    }
    found |= {one.key: one for one in map(_of_row, rows)}
    return [found[key] for key in sorted(found)]


async def find(session: AsyncSession, key: TemplateKey) -> TemplateInForce:
    """The template in force.

    Raises:
        TemplateNotFound: Neither shipped nor written.
    """
    found = await _newest(session, key)
    if found is None:
        raise TemplateNotFound
    return found


async def write(
    session: AsyncSession, key: TemplateKey, wanted: Text, *, expected: int, by: str, at: datetime
) -> TemplateInForce:
    """Make the next version of a template, or the first of a new one.

    Args:
        expected: The version that the change was made from; 0 for any, or for a new template.

    Raises:
        TemplateRefused: It could never become a message.
        PreconditionFailed: Another version is in force.
    """
    check(wanted, channel=key.channel, code=key.code)
    await session.execute(_LOCK, {"key": "/".join(key)})
    before = await _newest(session, key)
    current = before.version if before is not None else 0
    if expected not in (0, current):
        raise PreconditionFailed(current_version=current)
    row = TemplateVersion(
        code=key.code,
        channel=key.channel,
        language=key.language,
        version=max(current, SHIPPED_VERSION) + 1,
        subject=wanted.subject,
        body=wanted.body,
        changed_at=at,
        changed_by=by,
    )
    session.add(row)
    await session.flush()
    await audit.record(
        session,
        action="template.changed",
        subject_type="template",
        subject_id="/".join(key),
        details={"version": row.version},
        at=at,
    )
    return _of_row(row)


async def _newest(session: AsyncSession, key: TemplateKey) -> TemplateInForce | None:
    row = await session.scalar(
        select(TemplateVersion)
        .where(
            tuple_(TemplateVersion.code, TemplateVersion.channel, TemplateVersion.language)
            == tuple(key)
        )
        .order_by(TemplateVersion.version.desc())
        .limit(1)
    )
    if row is not None:
        return _of_row(row)
    shipped = SHIPPED.get(key)
    return TemplateInForce(key, SHIPPED_VERSION, shipped) if shipped is not None else None


def _of_row(row: TemplateVersion) -> TemplateInForce:
    return TemplateInForce(
        TemplateKey(row.code, row.channel, row.language),
        row.version,
        Text(row.subject, row.body),
        row.changed_at,
        row.changed_by,
    )
