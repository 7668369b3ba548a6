"""What the company may change while Baza runs: windows, thresholds, calendars, templates.

A policy is a model whose fields all have defaults; the defaults are version 0. Every change is a
new version, kept for ever with who made it and why, and in force within a second everywhere.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import event, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from libs.shared import audit
from libs.shared.auth import Principal, Role, require
from libs.shared.database import Connection, dumps
from libs.shared.errors import NotFound, PreconditionFailed
from libs.shared.field_types import Text2000
from libs.shared.problems import RequestInvalid, pointer, problems
from libs.shared.request_bodies import Request
from libs.shared.routes import IfMatch, Now, Session, router, set_etag

CACHE_SECONDS = 1.0

_CURRENT = "SELECT version, body FROM policies WHERE name = {name} ORDER BY version DESC LIMIT 1"
_CURRENT_ORM = text(_CURRENT.format(name=":name")).columns(body=JSONB)
_CURRENT_BARE = _CURRENT.format(name="$1")
_VERSIONS = text(
    "SELECT version, body, changed_at, changed_by, reason FROM policies WHERE name = :name"
    " ORDER BY version DESC LIMIT 500"
).columns(body=JSONB)
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('policy'), hashtext(:name))")
_INSERT = text(
    "INSERT INTO policies (name, version, body, changed_at, changed_by, reason) VALUES"
    " (:name, :version, CAST(:body AS jsonb), :changed_at, :changed_by, :reason)"
)


class Policy(BaseModel):
    """Something a company may change: `class ClaimPolicy(Policy, name="claims")`.

    Durations are whole numbers with the unit in the field's name (`claim_window_minutes`): plain
    to whoever edits them. Reading is open to new versions: stored fields that are gone since are
    ignored, new fields take their defaults. Writing is not: an unknown field is refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    policy_name: ClassVar[str] = ""

    def __init_subclass__(cls, *, name: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.policy_name = name or cls.policy_name

    @classmethod
    def __pydantic_init_subclass__(cls, *, name: str = "", **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        needed = [field for field, info in cls.model_fields.items() if info.is_required()]
        if not cls.policy_name or needed:
            raise TypeError(f"{cls.__name__}: a policy has a name and only defaults, not {needed}")


P = TypeVar("P", bound=Policy)


@dataclass(frozen=True, slots=True)
class Versioned(Generic[P]):
    """A policy in force. Version 0 is the defaults."""

    version: int
    body: P


class PolicyUnknown(NotFound):
    """There is no policy with this name."""

    code = "policy-unknown"
    ru = "Политики с таким именем нет."


_cache: dict[tuple[object, type[Policy]], tuple[float, Versioned[Any]]] = {}


async def current(where: "AsyncSession | Connection", kind: type[P]) -> Versioned[P]:
    """The policy in force, at most one second old.

    Args:
        where: An ORM session or a bare connection of the service's database.
    """
    key = (_place_of(where), kind)
    known = _cache.get(key)
    if known is not None and time.monotonic() - known[0] < CACHE_SECONDS:
        return known[1]
    found = await newest(where, kind)
    if len(_cache) > 200:  # only tests have that many databases
        _cache.clear()
    _cache[key] = (time.monotonic(), found)
    return found


async def bodies(where: "AsyncSession | Connection", *kinds: type[Policy]) -> list[Any]:
    """Several policies in force, in the given order: `current` of each, where thousands ask."""
    place, now = _place_of(where), time.monotonic()
    found = []
    for kind in kinds:
        known = _cache.get((place, kind))
        if known is None or now - known[0] >= CACHE_SECONDS:
            found.append((await current(where, kind)).body)
        else:
            found.append(known[1].body)
    return found


async def newest(where: "AsyncSession | Connection", kind: type[P]) -> Versioned[P]:
    """The policy in force, read now."""
    if isinstance(where, AsyncSession):
        row = (await where.execute(_CURRENT_ORM, {"name": kind.policy_name})).one_or_none()
        found = (row.version, row.body) if row is not None else None
    else:
        record = await where.fetchrow(_CURRENT_BARE, kind.policy_name)
        found = (record["version"], record["body"]) if record is not None else None
    if found is None:
        return Versioned(0, kind())
    return Versioned(found[0], _read(kind, found[1]))


def _place_of(where: "AsyncSession | Connection") -> object:
    """What the cache goes by: tests have many databases in one process."""
    return where.get_bind() if isinstance(where, AsyncSession) else where.get_server_pid()


def _read(kind: type[P], stored: dict[str, Any]) -> P:
    return kind.model_validate({name: stored[name] for name in kind.model_fields if name in stored})


class PolicyView(BaseModel):
    """A policy in force."""

    name: str
    version: int
    body: dict[str, Any]


class PolicyVersionView(BaseModel):
    """One version of a policy."""

    version: int
    body: dict[str, Any]
    changed_at: datetime
    changed_by: str
    reason: str | None


class ChangePolicy(Request):
    """A policy's next version, whole."""

    body: dict[str, Any]
    reason: Text2000 | None = None


_READERS = require()
_WRITERS = require(Role.SUPERVISOR, Role.ANALYST)


def policies_router(kinds: Sequence[type[Policy]]) -> APIRouter:
    """Routes to read and change a service's policies."""
    by_name = {kind.policy_name: kind for kind in kinds}
    if len(by_name) != len(kinds):
        raise ValueError("two policies have the same name")
    routes = router(prefix="/v1/policies", tags=["policies"])
    unknown = problems(PolicyUnknown)

    def kind_of(name: str) -> type[Policy]:
        if name not in by_name:
            raise PolicyUnknown(known=sorted(by_name))
        return by_name[name]

    @routes.get("", dependencies=[Depends(_READERS)])
    async def list_policies(session: Session) -> list[PolicyView]:
        """List every policy of this service with the version in force."""
        return [_view(kind, await newest(session, kind)) for kind in kinds]

    @routes.get("/{name}", dependencies=[Depends(_READERS)], responses=unknown)
    async def read_policy(name: str, session: Session, response: Response) -> PolicyView:
        """Show the version in force; its ETag is what a change must name."""
        found = await newest(session, kind_of(name))
        set_etag(response, found.version)
        return _view(kind_of(name), found)

    @routes.get("/{name}/schema", dependencies=[Depends(_READERS)], responses=unknown)
    async def read_policy_schema(name: str) -> dict[str, Any]:
        """Describe a policy's fields, their limits and defaults, as JSON Schema."""
        return kind_of(name).model_json_schema()

    @routes.get("/{name}/versions", dependencies=[Depends(_READERS)], responses=unknown)
    async def list_policy_versions(name: str, session: Session) -> list[PolicyVersionView]:
        """List the last 500 versions, the newest first."""
        found = await session.execute(_VERSIONS, {"name": kind_of(name).policy_name})
        return [PolicyVersionView(**row) for row in found.mappings()]

    @routes.put("/{name}", responses=unknown)
    async def change_policy(
        name: str,
        change: ChangePolicy,
        expected: IfMatch,
        session: Session,
        caller: Annotated[Principal, Depends(_WRITERS)],
        now: Now,
        response: Response,
    ) -> PolicyView:
        """Put a new version in force, if nobody has changed the policy since you read it."""
        made = await write(
            session,
            _parse(kind_of(name), change.body),
            expected=expected,
            by=caller.subject,
            at=now,
            reason=change.reason,
        )
        set_etag(response, made.version)
        return _view(kind_of(name), made)

    return routes


async def write(
    session: AsyncSession, body: P, *, expected: int, by: str, at: datetime, reason: str | None
) -> Versioned[P]:
    """Make a policy's next version. Two at once: one of them is told that it is stale.

    Args:
        expected: The version that the change was made from.

    Raises:
        PreconditionFailed: Another version is in force.
    """
    kind = type(body)
    await session.execute(_LOCK, {"name": kind.policy_name})
    before = await newest(session, kind)
    # No `*` here: it would be taken for version 0, the defaults, and a change made blindly is
    # not wanted anyway.
    if expected != before.version:
        raise PreconditionFailed(current_version=before.version)
    made = Versioned(before.version + 1, body)
    stored = dumps(body.model_dump(mode="json"))
    values = {"name": kind.policy_name, "version": made.version, "body": stored}
    await session.execute(_INSERT, {**values, "changed_at": at, "changed_by": by, "reason": reason})
    event.listen(session.sync_session, "after_commit", lambda _session: _cache.clear(), once=True)
    await audit.record(
        session,
        action="policy.changed",
        subject_type="policy",
        subject_id=kind.policy_name,
        details={"version": made.version},
        at=at,
        actor=by,
    )
    return made


def _parse(kind: type[P], body: dict[str, Any]) -> P:
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        errors = [
            {
                "pointer": pointer(("body", *found["loc"])),
                "in": "body",
                "detail": found["msg"],
                "code": found["type"].replace("_", "-"),
            }
            for found in error.errors(include_input=False, include_url=False)
        ]
        raise RequestInvalid(errors=errors, errors_total=len(errors)) from None


def _view(kind: type[Policy], found: Versioned[Any]) -> PolicyView:
    return PolicyView(
        name=kind.policy_name, version=found.version, body=found.body.model_dump(mode="json")
    )
