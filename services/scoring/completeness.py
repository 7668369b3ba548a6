"""What is missing in the data, before rules are made of them.

Events that wait as dead letters, purchases without an amount and buyers without a card shift
segments without anybody having done anything. Where more is missing than policy allows, rules are
not put in force unless somebody says that they know.

Source: requirement S-14.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from libs.shared.database import Connection
from libs.shared.dead_letters import OPEN_STATES
from libs.shared.errors import Conflict
from libs.shared.policies import Policy, current

SAMPLE = 100_000  # of purchases and scores: shares need no more

Percent = Annotated[float, Field(strict=True, ge=0, le=100)]


class CompletenessPolicy(Policy, name="data-completeness"):
    """How much may be missing."""

    most_waiting_events: Annotated[int, Field(strict=True, ge=0)] = 100
    most_free_purchases_percent: Percent = 20.0
    most_buyers_without_card_percent: Percent = 100.0  # cards may come by another way, or never


class DataIncomplete(Conflict):
    """More is missing in the data than policy allows; say `despite_gaps` if you know."""

    code = "data-incomplete"
    ru = "В данных не хватает больше, чем разрешает политика. Если это известно: despite_gaps."


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that may be missing: how much is, and how much may be."""

    name: str
    label: str
    found: float
    allowed: float

    @property
    def is_gap(self) -> bool:
        return self.found > self.allowed


async def measures(connection: Connection) -> list[Measure]:
    """What is missing now."""
    policy = (await current(connection, CompletenessPolicy)).body
    waiting = await connection.fetchval(
        f"SELECT count(*) FROM dead_letters WHERE state IN {OPEN_STATES}"
    )
    free = await _percent(connection, "purchases AS t", "t.amount_minor = 0")
    cardless = await _percent(
        connection,
        "scores AS t",
        "NOT EXISTS (SELECT FROM clients AS c"
        " WHERE c.client_id = t.client_id AND c.kind IS NOT NULL)",
    )
    return [
        Measure(
            "waiting_events",
            "События, которые не удалось учесть",
            waiting,
            policy.most_waiting_events,
        ),
        Measure(
            "free_purchases_percent",
            "Покупки без суммы, %",
            free,
            policy.most_free_purchases_percent,
        ),
        Measure(
            "buyers_without_card_percent",
            "Покупатели без карточки, %",
            cardless,
            policy.most_buyers_without_card_percent,
        ),
    ]


async def _percent(connection: Connection, table: str, condition: str) -> float:
    """Of a table's rows, from a sample where there are many."""
    name = table.split()[0]
    known = await connection.fetchval(
        "SELECT reltuples FROM pg_class WHERE oid = $1::regclass", name
    )
    share = min(100.0, 100.0 * SAMPLE / max(known, 1.0))
    found: float | None = await connection.fetchval(
        f"SELECT 100.0 * avg(({condition})::int)::float8 FROM {table}"
        f" TABLESAMPLE SYSTEM ({share}) REPEATABLE (1)"
    )
    return found or 0.0


async def demand_complete(connection: Connection) -> None:
    """Check that no more is missing than may be.

    Raises:
        DataIncomplete: More is.
    """
    gaps = [measure for measure in await measures(connection) if measure.is_gap]
    if gaps:
        raise DataIncomplete(
            gaps=[{"name": g.name, "found": g.found, "allowed": g.allowed} for g in gaps]
        )
