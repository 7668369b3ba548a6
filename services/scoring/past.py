"""What held at a past moment: a client's score and segment, and who rose and fell between two days.

The past is told from the purchases, each from when it was made and less what had been returned by
then, under the rules that were in force at that moment and with what analysts had overridden by
then. It is therefore not what was said at the time: a purchase imported since counts from when it
was made (decision 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from libs.shared.database import Connection
from services.scoring.rating_in_sql import Rating
from services.scoring.rfm import Figures, Scores
from services.scoring.rules import Rules
from services.scoring.rules_in_force import rules_at

EXAMPLES = 5
MOMENT = timedelta(microseconds=1)

# Each client rated twice, under rules of their own each time.
_TABLE = """
    CREATE TEMPORARY TABLE {name} (
        client_id uuid, segment text, monetary_minor bigint, total int) ON COMMIT DROP
"""
_KEEP = """
    INSERT INTO {name} SELECT client_id, new_segment AS segment, monetary_minor,
        recency_rating + frequency_rating + monetary_rating AS total
    FROM ({rated}) AS rated
"""
_MATRIX = """
    SELECT b.segment, e.segment, sign(coalesce(e.total, 0) - coalesce(b.total, 0))::int,
        count(*), coalesce(sum(b.monetary_minor), 0)::bigint,
        coalesce(sum(e.monetary_minor), 0)::bigint,
        (array_agg(client_id ORDER BY
            greatest(b.monetary_minor, e.monetary_minor) DESC, client_id)
            FILTER (WHERE b.segment IS DISTINCT FROM e.segment))[1:{examples}]
    FROM begin_of_span AS b FULL JOIN end_of_span AS e USING (client_id) GROUP BY 1, 2, 3
"""


@dataclass(frozen=True, slots=True)
class PastStanding:
    """A client at a past moment."""

    figures: Figures
    scores: Scores
    segment: str
    last_day: date
    rules: Rules


@dataclass(frozen=True, slots=True)
class Migration:
    """Clients who went from one segment to another, or stayed; null: no purchase yet, or no more.

    Attributes:
        direction: 1 when the three ratings together are higher at the end, -1 when lower.
        money_before: Kept in the period that ended then; likewise `money_after`.
        examples: The most valuable of those who moved.
    """

    before: str | None
    after: str | None
    direction: int
    clients: int
    money_before: int
    money_after: int
    examples: Sequence[UUID]


async def standing_at(
    connection: Connection, client_id: UUID, moment: datetime
) -> PastStanding | None:
    """A client's standing at a moment, that moment included; None: had no purchase then."""
    rules = await rules_at(connection, moment)
    rating = Rating(rules, rules.day_of(moment))
    whose = f"client_id = {rating.add(client_id, 'uuid')}"
    row = await connection.fetchrow(rating.rated(rating.past(moment, whose)), *rating.values)
    if row is None:
        return None
    return PastStanding(
        Figures((row["on_day"] - row["last_day"]).days, row["frequency"], row["monetary_minor"]),
        Scores(row["recency_rating"], row["frequency_rating"], row["monetary_rating"]),
        row["new_segment"],
        row["last_day"],
        rules,
    )


async def migration(connection: Connection, begin: date, end: date) -> list[Migration]:
    """Who went where between the ends of two days, in a transaction that may make tables.

    Days end where the rules of the time say that they end.
    """
    for name, day in (("begin_of_span", begin), ("end_of_span", end)):
        await _keep(connection, name, day)
    rows = await connection.fetch(_MATRIX.format(examples=EXAMPLES))
    return [
        Migration(before, after, direction, clients, money_before, money_after, examples or ())
        for before, after, direction, clients, money_before, money_after, examples in rows
    ]


async def _keep(connection: Connection, name: str, day: date) -> None:
    rules = await rules_at(connection, datetime(day.year, day.month, day.day, 12, tzinfo=UTC))
    rules = await rules_at(connection, rules.start_of(day + timedelta(1)) - MOMENT)
    rating = Rating(rules, day)
    rated = rating.rated(rating.past(rules.start_of(day + timedelta(1)) - MOMENT))
    await connection.execute(_TABLE.format(name=name))
    await connection.execute(_KEEP.format(name=name, rated=rated), *rating.values)
    await connection.execute(f"ANALYZE {name}")
