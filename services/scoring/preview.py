"""What a draft would do: who would move from which segment to which, and the money with them.

The base is rated under the draft as activation would rate it at this moment, of one state of the
database, and nothing is changed. The quintiles that were found are kept with the preview, so that
activating "as previewed" means these bounds and not those of a later hour: then exactly the clients
move who were told of, except those who bought or aged meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from libs.shared.database import Connection
from services.scoring.activation import figures_of, take_cuts
from services.scoring.rating_in_sql import Rating
from services.scoring.rfm import Cuts
from services.scoring.rules import Rules, RuleSet

EXAMPLES = 5

_MATRIX = """
    SELECT segment, new_segment, count(*) AS clients, sum(monetary_minor)::bigint AS money
    FROM ({rated}) AS rated GROUP BY segment, new_segment
"""
# Apart from the matrix, so that only those who would move are put in order.
_EXAMPLES = """
    SELECT segment, new_segment, array_agg(client_id ORDER BY place) AS examples FROM (
        SELECT segment, new_segment, client_id, row_number() OVER (
            PARTITION BY segment, new_segment ORDER BY monetary_minor DESC, client_id) AS place
        FROM ({rated}) AS rated WHERE segment IS DISTINCT FROM new_segment
    ) AS placed WHERE place <= {examples} GROUP BY segment, new_segment
"""


@dataclass(frozen=True, slots=True)
class Moves:
    """A cell of the matrix.

    Attributes:
        monetary_minor: Kept in the draft's period, minor units of its reporting currency.
        examples: The most valuable of those who would move.
    """

    old_segment: str | None
    new_segment: str | None
    clients: int
    monetary_minor: int
    examples: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class Preview:
    """What activating a draft would do now."""

    cuts: Cuts
    moves: Sequence[Moves]


async def preview(connection: Connection, rule_set: RuleSet, *, now: datetime) -> Preview:
    """Rate everybody under a draft, in a transaction that sees one state of the database.

    Raises:
        BaseIsEmpty, CurrencyWithoutRate: As `take_cuts`.
    """
    cuts = await take_cuts(connection, rule_set, now=now)
    rules = Rules.of(0, rule_set, cuts)
    rating = Rating(rules, rules.day_of(now))
    rated = rating.rated(await figures_of(connection, rating, now))
    rows = await connection.fetch(_MATRIX.format(rated=rated), *rating.values)
    named = await connection.fetch(_EXAMPLES.format(rated=rated, examples=EXAMPLES), *rating.values)
    examples = {(old, new): clients for old, new, clients in named}
    moves = [
        Moves(old, new, clients, money, examples.get((old, new), ()))
        for old, new, clients, money in rows
    ]
    return Preview(cuts, sorted(moves, key=lambda m: (-m.clients, m.old_segment or "")))
