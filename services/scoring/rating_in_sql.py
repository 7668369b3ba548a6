"""What rules make of many clients at once, in SQL: the same ratings and segments as `standing.py`.

Where two rule sets have the same basis (period, rates, what counts), the stored figures serve both,
and rating a client costs a microsecond. Otherwise, and for clients whose next boundary has passed
without their timer having fired yet, the figures are counted from the purchases.
"""

from collections.abc import Sequence
from datetime import date, datetime
from math import ceil
from uuid import UUID

from libs.shared.database import Connection
from services.scoring.rfm import EVERY_SCORES, Cuts, quintile_bounds_of
from services.scoring.rules import Rules, RuleSet

_STORED = """
    SELECT client_id, seq, segment, recency_score, frequency_score, monetary_score, due_at, as_of,
        greatest(as_of, {today}) AS on_day, last_day, oldest_day, frequency, monetary_minor,
        monthly_run, override_segment, override_until
    FROM scores WHERE last_day IS NOT NULL AND {which}
"""
_COUNTED = """
    SELECT client_id, seq, segment, recency_score, frequency_score, monetary_score, due_at, as_of,
        on_day, max(day) AS last_day, min(day) FILTER (WHERE day > on_day - {period}) AS oldest_day,
        {frequency} AS frequency,
        coalesce(sum(value_minor) FILTER (WHERE day > on_day - {period}), 0)::bigint
            AS monetary_minor,
        {run} AS monthly_run, override_segment, override_until
    FROM (
        SELECT s.*, {on_day} AS on_day, p.day, p.purchases, p.value_minor{months}
        FROM (SELECT * FROM scores WHERE {which}) AS s JOIN (
            SELECT client_id, day, count(*) AS purchases,
                sum(round((amount_minor - returned_minor) * rate)) AS value_minor
            FROM purchases JOIN unnest({currencies}, {rates}) AS r (currency, rate) USING (currency)
            WHERE NOT is_returned AND {whose} GROUP BY client_id, day
        ) AS p USING (client_id)
    ) AS by_day
    GROUP BY client_id, seq, segment, recency_score, frequency_score, monetary_score, due_at,
        as_of, on_day, override_segment, override_until
"""
_PAST = """
    SELECT client_id, on_day, max(day) AS last_day,
        min(day) FILTER (WHERE day > on_day - {period}) AS oldest_day, {frequency} AS frequency,
        coalesce(sum(value_minor) FILTER (WHERE day > on_day - {period}), 0)::bigint
            AS monetary_minor,
        {run} AS monthly_run, override_segment, override_until
    FROM (
        SELECT p.*, {today} AS on_day{months}, override_segment, override_until FROM (
            SELECT client_id, day, count(*) AS purchases,
                sum(round((amount_minor - coalesce(back_minor, 0)) * rate)) AS value_minor
            FROM purchases JOIN unnest({currencies}, {rates}) AS r (currency, rate) USING (currency)
            LEFT JOIN (
                SELECT deal_id, sum(amount_minor) AS back_minor, bool_or(is_full) AS is_undone
                FROM returns WHERE reversed_at <= {moment} AND {whose} GROUP BY deal_id
            ) AS back USING (deal_id)
            WHERE closed_at <= {moment} AND {whose} AND is_undone IS NOT TRUE
            GROUP BY client_id, day
        ) AS p LEFT JOIN (
            SELECT DISTINCT ON (client_id) client_id, segment AS override_segment,
                until AS override_until
            FROM segment_overrides WHERE given_at <= {moment} AND {whose}
            ORDER BY client_id, given_at DESC, override_id DESC
        ) AS o USING (client_id)
    ) AS by_day
    GROUP BY client_id, on_day, override_segment, override_until
"""
_DAYS = "count(*) FILTER (WHERE day > on_day - {period})::int"
_PURCHASES = "coalesce(sum(purchases) FILTER (WHERE day > on_day - {period}), 0)::int"
_MONTH = "(extract(year FROM {day}) * 12 + extract(month FROM {day}) - 1)::int"
# Months in a row share the sum of the month and its place, counted from the newest.
_MONTHS = """, {month} AS month, max({month}) OVER (PARTITION BY client_id) AS newest,
    dense_rank() OVER (PARTITION BY client_id ORDER BY {month} DESC) AS place"""
_RUN = """(CASE WHEN max(month) >= {this_month} - 1
    THEN count(DISTINCT month) FILTER (WHERE month + place = newest + 1) ELSE 0 END)::smallint"""

# Figures are whole numbers, so a bound is as good as the next whole number: comparing those is four
# times as fast as width_bucket over fractions (measured; the ratings stand here several times when
# PostgreSQL has put everything into one expression). Names are looked up through small numbers:
# finding one of 125 texts in an array reads all before it.
_RATED = """
    SELECT f.*, recency_rating, frequency_rating, monetary_rating,
        CASE WHEN override_until > on_day AND override_segment = ANY({names}) THEN override_segment
            ELSE {names}[{numbers}[25 * recency_rating + 5 * frequency_rating + monetary_rating - 30
                + 125 * width_bucket(coalesce(monthly_run, 0), {run_bounds})]] END AS new_segment,
        least(
            oldest_day + {period},
            last_day + {recency_bounds}[6 - recency_rating],
            CASE WHEN monthly_run > 0
            THEN (date_trunc('month', last_day::timestamp) + interval '2 months')::date END,
            CASE WHEN override_until > on_day THEN override_until END
        ) AS due_on
    FROM ({figures}) AS f CROSS JOIN LATERAL (SELECT
        {recency}::smallint AS recency_rating, {frequency}::smallint AS frequency_rating,
        {monetary}::smallint AS monetary_rating
    ) AS r
"""
_RATE = """(CASE WHEN {value} < {0} THEN {ratings[0]} WHEN {value} < {1} THEN {ratings[1]}
    WHEN {value} < {2} THEN {ratings[2]} WHEN {value} < {3} THEN {ratings[3]}
    ELSE {ratings[4]} END)"""

# The midnight a day begins with. A time that a zone's clock shows twice is the first one, as Python
# takes it; PostgreSQL takes the second.
_MIDNIGHT = """
    CASE WHEN (({day}::timestamp AT TIME ZONE {zone}) - interval '1 hour') AT TIME ZONE {zone}
        = {day}::timestamp
    THEN ({day}::timestamp AT TIME ZONE {zone}) - interval '1 hour'
    ELSE {day}::timestamp AT TIME ZONE {zone} END
"""

_NEVER = 2**31 - 1  # width_bucket wants at least one bound

EVERYBODY = "true"
FIRST = UUID(int=0)  # no client has this id


class Rating:
    """One statement that rates clients under some rules on some day, and its parameters.

    A parameter gets its number when it is first used, so those not used are not sent.
    """

    def __init__(self, rules: Rules, today: date) -> None:
        self.rules = rules
        self.values: list[object] = []
        segments = [by[scores] for by in rules.segments_by_run for scores in EVERY_SCORES]
        names = list(rules.rule_set.treatment())
        self._known: dict[str, tuple[object, str]] = {
            "today": (today, "date"),
            "period": (rules.period.days, "int"),
            "zone": (rules.rule_set.zone, "text"),
            "currencies": (list(rules.rates), "text[]"),
            "rates": (list(rules.rates.values()), "numeric[]"),
            "names": (names, "text[]"),
            "numbers": ([names.index(segment) + 1 for segment in segments], "int[]"),
            "run_bounds": (list(rules.run_bounds) or [_NEVER], "int[]"),
            "recency_bounds": ([ceil(bound) for bound in rules.cuts.recency_days], "int[]"),
        }
        self._used: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        """The placeholder of a known parameter."""
        if name not in self._used:
            self._used[name] = self.add(*self._known[name])
        return self._used[name]

    def add(self, value: object, of_type: str) -> str:
        """The placeholder of another parameter."""
        self.values.append(value)
        return f"(${len(self.values)}::{of_type})"

    def stored(self, which: str = EVERYBODY) -> str:
        """Figures as stored, of clients who have any; wrong for those whose boundary has passed."""
        return _STORED.format(which=which, today=self["today"])

    def counted(
        self, which: str = EVERYBODY, whose: str = EVERYBODY, on_day: str | None = None
    ) -> str:
        """Figures counted from the purchases, of clients who have a score and a purchase left.

        Args:
            which: Condition on `scores`.
            whose: The same or a wider condition on `purchases`, to read fewer.
            on_day: For which day, an expression of `s.as_of`, `s.due_at`; today if left out.
        """
        return _COUNTED.format(
            which=which,
            whose=whose,
            on_day=on_day or f"greatest(s.as_of, {self['today']})",
            **self._counting(),
        )

    def past(self, moment: datetime, whose: str = EVERYBODY) -> str:
        """Figures of a past moment of the day `today`, less what was returned by then.

        Args:
            whose: Condition on `client_id`.
        """
        return _PAST.format(
            whose=whose,
            today=self["today"],
            moment=self.add(moment, "timestamptz"),
            **self._counting(),
        )

    def _counting(self) -> dict[str, str]:
        run, months = "NULL::smallint", ""
        if self.rules.run_bounds:
            run = _RUN.format(this_month=_MONTH.format(day="on_day"))
            months = _MONTHS.format(month=_MONTH.format(day="p.day"))
        frequency = _PURCHASES if self.rules.counts_purchases else _DAYS
        return {
            "frequency": frequency.format(period=self["period"]),
            "run": run,
            "months": months,
            "period": self["period"],
            "currencies": self["currencies"],
            "rates": self["rates"],
        }

    def rated(self, figures: str) -> str:
        """Ratings (`recency_rating` ...), `new_segment` and `due_on`, beside the figures."""
        cuts = self.rules.cuts
        names = ("period", "names", "numbers", "run_bounds", "recency_bounds")
        return _RATED.format(
            figures=figures,
            recency=self._rate("(on_day - last_day)", cuts.recency_days, (5, 4, 3, 2, 1)),
            frequency=self._rate("frequency", cuts.frequency, (1, 2, 3, 4, 5)),
            monetary=self._rate("monetary_minor", cuts.monetary_minor, (1, 2, 3, 4, 5)),
            **{name: self[name] for name in names},
        )

    def _rate(self, value: str, bounds: Sequence[float], ratings: Sequence[int]) -> str:
        whole = [self.add(ceil(bound), "bigint") for bound in bounds]
        return _RATE.format(*whole, value=value, ratings=ratings)

    def midnight(self, day: str) -> str:
        """The instant at which a day begins."""
        return _MIDNIGHT.format(day=day, zone=self["zone"])


_HISTOGRAMS = """
    SELECT recency, frequency, count(*) FROM (
        SELECT on_day - last_day AS recency, frequency FROM ({figures}) AS f
    ) AS f GROUP BY GROUPING SETS ((recency), (frequency))
"""
_QUANTILES = """
    SELECT percentile_cont(ARRAY[0.2, 0.4, 0.6, 0.8])
        WITHIN GROUP (ORDER BY monetary_minor::float8) FROM ({figures}) AS f
"""


async def cuts_of(
    connection: Connection, rule_set: RuleSet, rating: Rating, figures: str
) -> Cuts | None:
    """The rule set's cuts, of the base's quintiles where it wants them; None: nobody has figures.

    Days and purchases take few different values, so they are counted rather than sorted.

    Args:
        figures: A statement of `rating`'s; read only where an axis has quintiles.
    """
    methods, fixed = rule_set.methods, rule_set.fixed_cuts
    step = 1 if rule_set.ties == "below" else 0
    recency: Sequence[float] = fixed.recency_days
    frequency: Sequence[float] = fixed.frequency
    monetary: Sequence[float] = fixed.monetary_minor
    if "quintile" in (methods.recency, methods.frequency):
        statement = _HISTOGRAMS.format(figures=figures)
        rows = await connection.fetch(statement, *rating.values)
        if not rows:
            return None
        if methods.recency == "quintile":
            recency = quintile_bounds_of({r: n for r, _, n in rows if r is not None}, step)
        if methods.frequency == "quintile":
            frequency = quintile_bounds_of({f: n for _, f, n in rows if f is not None}, step)
    if methods.monetary == "quintile":
        await connection.execute("SET LOCAL work_mem = '128MB'")  # a million numbers in one sort
        found = await connection.fetchval(_QUANTILES.format(figures=figures), *rating.values)
        if found is None:
            return None
        monetary = [value + step * rule_set.money_step_minor for value in found]
    return Cuts(tuple(recency), tuple(frequency), tuple(monetary))


async def join_by_hash(connection: Connection) -> None:
    """Keep this transaction from joining stretches row by row.

    PostgreSQL cannot tell how many ids lie between two uuids. Where both are in one bucket of its
    histogram it expects a single one and compares each of thousands with each (1.9 s instead of
    0.01 for two thousand clients of a million).
    """
    await connection.execute("SET LOCAL enable_nestloop = off")


async def look_up_by_key(connection: Connection) -> None:
    """Let this transaction find the few rows that it writes by their keys.

    PostgreSQL expects most of a stretch to change and would read it a second time for a join.
    """
    await connection.execute("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")


async def end_of_stretch(connection: Connection, after: UUID, length: int) -> UUID | None:
    """The last client of a stretch of so many behind `after`; None where it is the last stretch."""
    last: UUID | None = await connection.fetchval(
        "SELECT client_id FROM scores WHERE client_id > $1 ORDER BY client_id OFFSET $2 LIMIT 1",
        after,
        length - 1,
    )
    return last


async def clients_in(connection: Connection, after: UUID, upto: UUID | None) -> int:
    """How many clients have a row of scores in a stretch."""
    count: int = await connection.fetchval(
        "SELECT count(*) FROM scores WHERE client_id > $1 AND client_id <= $2",
        after,
        upto or UUID(int=2**128 - 1),
    )
    return count
