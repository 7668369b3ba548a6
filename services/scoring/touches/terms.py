"""Under which rules and which policy the queue is worked.

Both change seldom and every request needs them, so each process remembers them. A statement that
goes by them compares their versions itself (`HOLD`) and does nothing when others are in force; they
are read then, and it is asked again. So a change is seen at once, without a round trip for it.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

from libs.shared.database import Connection, Database
from libs.shared.policies import newest
from services.scoring.rules import Rules
from services.scoring.rules_in_force import rules_in_force
from services.scoring.touches.policy import QueuePolicy

HOLD = """
    SELECT coalesce((SELECT version FROM rule_sets WHERE status = 'active') = $1::int
        AND coalesce((SELECT max(version) FROM policies WHERE name = 'queue'), 0) = $2::int, false)
        AS hold
"""
MOST_CHANGES = 20  # of rules and policy while one request is answered

Found = TypeVar("Found")


class TermsChangeTooFast(RuntimeError):
    """Rules or policy were others again each time they were read."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The rules and the policy that a statement goes by."""

    rules: Rules
    policy: QueuePolicy
    policy_version: int

    @property
    def versions(self) -> tuple[int, int]:
        """What `HOLD` compares: its first two parameters."""
        return self.rules.version, self.policy_version


_remembered: WeakKeyDictionary[Database, Terms] = WeakKeyDictionary()


async def under_terms(
    database: Database,
    connect: Callable[[], AbstractAsyncContextManager[Connection]],
    ask: Callable[[Connection, Terms], Awaitable[Found | None]],
) -> Found:
    """What a statement finds under the terms in force.

    Args:
        connect: Where it runs; asked for anew with each try.
        ask: Gives None when the terms that it was given do not hold; it must not have written then.
    """
    terms = _remembered.get(database)
    for _ in range(MOST_CHANGES):
        if terms is None:
            terms = await in_force(database)
        async with connect() as connection:
            found = await ask(connection, terms)
        if found is not None:
            return found
        terms = None
    raise TermsChangeTooFast


async def in_force(database: Database) -> Terms:
    """The terms of this moment, read anew and remembered."""
    async with database.pool.acquire() as connection:
        rules = await rules_in_force(connection)
        policy = await newest(connection, QueuePolicy)
    terms = _remembered[database] = Terms(rules, policy.body, policy.version)
    return terms
