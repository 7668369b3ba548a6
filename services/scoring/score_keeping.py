"""Loading clients' standings, and keeping what became of them, thousands at a time.

Whoever changes a standing loads it here first, which locks its row; what is kept goes out with its
segment.changed events in the same transaction. Rows are always locked in the order of their ids, so
that two batches cannot wait for each other.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from libs.shared import failpoints
from libs.shared.arrays import array_text, ids_text
from libs.shared.bulk import MANY, append, insert_arrays
from libs.shared.database import Connection
from libs.shared.ids import quick
from services.scoring.rfm import Figures, Scores
from services.scoring.rules import Rules
from services.scoring.rules_in_force import RULES_TEXTS, rules_in_force, rules_of_texts
from services.scoring.segment_moves import Moves, said_arrays, said_with, say
from services.scoring.standing import Day, Standing

_LOCK = "SELECT FROM scores WHERE client_id = ANY($1::uuid[]) ORDER BY client_id FOR UPDATE"

# What the fold needs to go on; ratings and figures follow from the purchases. Each client is looked
# up by keys, in the order of the ids, however many there are; and the planner is not told how many
# (the inner SELECT), or it would take one plan for each number and plan every time anew.
_READ = """
    SELECT place, seq, segment, as_of, rule_version, due_at, override_segment, override_until,
        days, amounts {besides}
    FROM unnest((SELECT $1::text::uuid[])) WITH ORDINALITY AS wanted (client_id, place)
    LEFT JOIN LATERAL (
        SELECT seq, segment, as_of, rule_version, due_at, override_segment, override_until
        FROM scores WHERE scores.client_id = wanted.client_id FOR UPDATE
    ) AS locked ON true CROSS JOIN LATERAL (
        SELECT array_agg(day) AS days, array_agg({amount}) AS amounts FROM purchases {rates}
        WHERE purchases.client_id = wanted.client_id AND NOT is_returned
    ) AS bought
"""
_AMOUNT = "amount_minor - returned_minor"
_WORTH = f"round(({_AMOUNT}) * rate)::bigint"
_RATES = "JOIN unnest($2::text[], $3::numeric[]) AS r (currency, rate) USING (currency)"
# In the row of the first client. OFFSET keeps each deal being looked up by its key: as a join it
# would read the whole table where that is small.
_BESIDES = f""",
    CASE WHEN place = 1 THEN {RULES_TEXTS} END,
    CASE WHEN place = 1 THEN (
        SELECT array_agg(id) FROM unnest((SELECT {{deals}}::text::uuid[])) AS told (id)
        WHERE EXISTS (SELECT FROM purchases WHERE purchases.deal_id = id OFFSET 0)) END
"""
_RATED = """
    SELECT client_id, last_day, oldest_day, monthly_run, recency_score, frequency_score,
        monetary_score, frequency, monetary_minor
    FROM scores WHERE client_id = ANY($1::uuid[]) AND recency_score IS NOT NULL
"""

# Instants are given as Unix seconds, days as Python counts them from the year 1.
_SCORE_TYPES = {
    "client_id": "uuid",
    "seq": "int",
    "segment": "text",
    "recency_score": "smallint",
    "frequency_score": "smallint",
    "monetary_score": "smallint",
    "last_day": "date",
    "frequency": "int",
    "monetary_minor": "bigint",
    "as_of": "date",
    "due_at": "timestamptz",
    "oldest_day": "date",
    "monthly_run": "smallint",
}
SCORE_COLUMNS = (*_SCORE_TYPES, "rule_version")
NEW_SCORES = "({}) = ({})".format(
    ", ".join(SCORE_COLUMNS[1:]), ", ".join(f"excluded.{name}" for name in SCORE_COLUMNS[1:])
)
"""What an upsert of `SCORE_COLUMNS` sets where there is a row."""

_GIVEN_AS = {
    "date": ("int", "date '0001-01-01' - 1 + {}"),
    "timestamptz": ("bigint", "to_timestamp({})"),
}
_PURCHASE_TYPES = {
    "deal_id": "uuid",
    "client_id": "uuid",
    "day": "date",
    "closed_at": "timestamptz",
    "amount_minor": "bigint",
    "currency": "text",
}

_NOBODY = Scores(None, None, None)  # type: ignore[arg-type]  # columns of a client without scores
_NOTHING = Figures(None, None, None)  # type: ignore[arg-type]


class Loaded(NamedTuple):
    """What `load_alone` finds.

    Attributes:
        told_before: Those of the deals that are purchases already.
    """

    rules: Rules
    standings: dict[UUID, Standing]
    told_before: Collection[UUID]


async def load(tx: Connection, client_ids: Iterable[UUID], rules: Rules) -> dict[UUID, Standing]:
    """Lock and read standings; a client that is not known yet gets an empty one.

    Ratings and figures are not read: whoever asks for them first settles (`add_ratings` else).
    """
    standings = _empty(client_ids)
    await tx.execute(_LOCK, list(standings))
    await _read(tx, standings, rules)
    return standings


_last_rules: Rules | None = None  # what a process goes by until it is told otherwise


async def rules_last_seen(tx: Connection) -> Rules:
    """A guess of the rules in force, for who looks whether they still are."""
    global _last_rules  # a guess that is checked
    if _last_rules is None:
        _last_rules = await rules_in_force(tx)
    return _last_rules


def last_rules() -> Rules | None:
    """The same guess, if there has been one."""
    return _last_rules


async def load_alone(
    tx: Connection, client_ids: Iterable[UUID], deals: Sequence[UUID] = ()
) -> Loaded:
    """The same in one statement, with the rules in force.

    Only for who knows that nobody else adds or changes purchases of these clients meanwhile: a
    statement sees the purchases of the instant it began, even if it then waited for a lock. The
    consumer knows it, because all purchases of a client are told in one lane.
    """
    global _last_rules  # a guess that is checked
    standings = _empty(client_ids)
    rules = await rules_last_seen(tx)
    texts, told_before = await _read(tx, standings, rules, deals)
    _last_rules = rules_of_texts(texts) if texts else await rules_in_force(tx)
    if _last_rules is not rules:  # other rates, or days of another zone
        standings = _empty(client_ids)
        await _read(tx, standings, _last_rules)
    return Loaded(_last_rules, standings, told_before or ())


def _empty(client_ids: Iterable[UUID]) -> dict[UUID, Standing]:
    return {client_id: Standing(client_id) for client_id in sorted(map(quick, set(client_ids)))}


async def _read(
    tx: Connection,
    standings: Mapping[UUID, Standing],
    rules: Rules,
    deals: Sequence[UUID] | None = None,
) -> tuple[Sequence[str] | None, Collection[UUID] | None]:
    """Lock and fill in; with `deals` also the rules in force and which of the deals are known."""
    by_place = list(standings.values())
    values: list[object] = [ids_text(standings)]
    has_rates = len(rules.rates) > 1
    if has_rates:
        values += [list(rules.rates), list(rules.rates.values())]
    if deals is not None:
        values.append(ids_text(deals))
    texts: Sequence[str] | None = None
    known: Collection[UUID] | None = None
    for row in await tx.fetch(_reading(has_rates=has_rates, asks=deals is not None), *values):
        place, seq, segment, as_of, version, due_at, override, until, days, amounts, *besides = row
        standing = by_place[place - 1]
        if besides and place == 1:
            texts, known = besides
        if seq is not None:
            standing.seq, standing.segment, standing.as_of = seq, segment, as_of
            standing.rule_version = version
            if due_at is not None:
                standing.due_on = rules.day_of(due_at)
            if until is not None:
                standing.override, standing.override_until = override, until
        if days is not None:
            _fill_in(standing.days, days, amounts)
    return texts, known


def _fill_in(bought: dict[date, Day], days: Sequence[date], amounts: Sequence[int]) -> None:
    for day, amount in zip(days, amounts, strict=True):
        if day in bought:
            bought[day].purchases += 1
            bought[day].value_minor += amount
        else:
            bought[day] = Day(1, amount)


@cache
def _reading(*, has_rates: bool, asks: bool) -> str:
    return _READ.format(
        amount=_WORTH if has_rates else _AMOUNT,
        rates=_RATES if has_rates else "",
        besides=_BESIDES.format(deals="$4" if has_rates else "$2") if asks else "",
    )


async def add_ratings(tx: Connection, standings: Mapping[UUID, Standing]) -> None:
    """Read what was stored of ratings and figures into standings that were loaded."""
    for client_id, last_day, oldest_day, run, *rated in await tx.fetch(_RATED, list(standings)):
        recency, frequency, monetary, days, value_minor = rated
        standing = standings[client_id]
        standing.last_day, standing.oldest_day, standing.monthly_run = last_day, oldest_day, run
        standing.scores = Scores(recency, frequency, monetary)
        standing.figures = Figures((standing.as_of - last_day).days, days, value_minor)


async def keep(
    tx: Connection,
    standings: Iterable[Standing],
    moves: Moves,
    rules: Rules,
    *,
    purchases: Sequence[Sequence[object]] = (),
) -> None:
    """Write back those that were settled, with the purchases that settled them, and say the moves.

    For a few one statement does it all. Many rows are added by COPY.

    Args:
        standings: Loaded in this transaction.
        purchases: New ones, rows of `_PURCHASE_TYPES`.
    """
    settled = [s for s in standings if s.is_settled]
    if not settled:
        return
    values: list[object] = [*_columns(settled, rules), rules.version]
    if max(len(settled), len(moves), len(purchases)) >= MANY:
        if purchases:
            values.append(len(purchases))
            await append(tx, "purchases", tuple(_PURCHASE_TYPES), purchases)
        await tx.execute(_keeping(counts=bool(purchases)), *values)
        await say(tx, moves)
        return
    if purchases:
        values += [len(purchases), *zip(*purchases, strict=True)]
    if moves:
        values += said_arrays(moves)
    buys, says = bool(purchases), bool(moves)
    await tx.execute(_keeping(counts=buys, buys=buys, says=says), *values)
    failpoints.reach("outbox.added")


@cache
def _keeping(*, counts: bool, buys: bool = False, says: bool = False) -> str:
    """The statement of `keep`: texts of arrays, the rules' version, then what else there is.

    An UPDATE of the rows known to be there is no faster than the upsert, and its plan may read the
    whole table.
    """
    version = len(_SCORE_TYPES) + 1
    given = [_GIVEN_AS.get(kind, (kind, "{}")) for kind in _SCORE_TYPES.values()]
    arrays = ", ".join(f"${n}::text::{kind}[]" for n, (kind, _) in enumerate(given, 1))
    made = [sql.format(name) for name, (_, sql) in zip(_SCORE_TYPES, given, strict=True)]
    parts = [
        f"""kept AS (
            INSERT INTO scores ({", ".join(SCORE_COLUMNS)})
            SELECT {", ".join(made)}, ${version}::int
            FROM unnest({arrays}) AS new ({", ".join(_SCORE_TYPES)})
            ON CONFLICT (client_id) DO UPDATE SET {NEW_SCORES}
            RETURNING client_id
        )""",
        # Their touches are planned anew (`touches/changes.py`).
        "noted AS (INSERT INTO touch_changes (client_id) SELECT client_id FROM kept)",
    ]
    first = version + 1
    if counts:
        parts.append(f"counted AS (INSERT INTO purchase_counts (added) VALUES (${first}))")
        first += 1
    if buys:
        parts.append(f"bought AS ({insert_arrays('purchases', _PURCHASE_TYPES, first)})")
        first += len(_PURCHASE_TYPES)
    if says:
        parts.append(said_with(first))
    return f"WITH {', '.join(parts)} SELECT"


def _columns(standings: Sequence[Standing], rules: Rules) -> list[str]:
    """The arrays of `_SCORE_TYPES`, as texts."""
    scores = [s.scores or _NOBODY for s in standings]
    figures = [s.figures or _NOTHING for s in standings]
    start_of = rules.start_of
    columns: list[list[Any]] = [
        [s.seq for s in standings],
        [s.segment for s in standings],
        [recency for recency, _, _ in scores],
        [frequency for _, frequency, _ in scores],
        [monetary for _, _, monetary in scores],
        [s.last_day and s.last_day.toordinal() for s in standings],
        [days for _, days, _ in figures],
        [value_minor for _, _, value_minor in figures],
        [s.as_of.toordinal() for s in standings],
        [s.due_on and int(start_of(s.due_on).timestamp()) for s in standings],
        [s.oldest_day and s.oldest_day.toordinal() for s in standings],
        [s.monthly_run for s in standings],
    ]
    return [ids_text(s.client_id for s in standings), *map(array_text, columns)]
