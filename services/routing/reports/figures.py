"""Reports on a time: how fast leads are taken, what lapses, who converts what, how fairly it goes.

Each is one statement. Times are seconds; percentiles are of what was taken in the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.shared.database import Connection


@dataclass(frozen=True, slots=True)
class Report:
    """Attributes: `columns`: their names, as JSON and CSV carry them."""

    title: str
    columns: tuple[str, ...]
    sql: str


_TIMES = """
    count(*) AS leads, avg({took})::float8 AS mean_s,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY {took}) AS p50_s,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY {took}) AS p90_s,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY {took}) AS p99_s, max({took})::float8 AS max_s
"""
_TIME_COLUMNS = ("leads", "mean_s", "p50_s", "p90_s", "p99_s", "max_s")
_RESPONSE = _TIMES.format(took="extract(epoch FROM l.claimed_at - l.received_at)")
_CLAIM = _TIMES.format(took="extract(epoch FROM o.ended_at - o.offered_at)")
_LAPSES = """
    count(*) AS offers, count(*) FILTER (WHERE o.ended_how = 'lapsed') AS lapsed,
    round(100.0 * count(*) FILTER (WHERE o.ended_how = 'lapsed') / count(*), 1)::float8
        AS lapsed_percent
"""
_LAPSE_COLUMNS = ("offers", "lapsed", "lapsed_percent")
_TIME = "o.offered_at >= $1 AND o.offered_at < $2"
_OFFERED = f"FROM offers AS o WHERE {_TIME}"
_OF_LEADS = f"FROM offers AS o JOIN leads AS l USING (lead_id) WHERE {_TIME}"

REPORTS = {
    "response-times": Report(
        "Time from when a lead came in until somebody took it",
        ("manager_id", *_TIME_COLUMNS),
        f"SELECT l.manager_id, {_RESPONSE} FROM leads AS l WHERE l.received_at >= $1"
        " AND l.received_at < $2 AND l.claimed_at IS NOT NULL GROUP BY l.manager_id ORDER BY 1",
    ),
    "claim-times": Report(
        "Time from an offer until it was taken",
        ("manager_id", *_TIME_COLUMNS),
        f"SELECT o.manager_id, {_CLAIM} {_OFFERED} AND o.ended_how = 'claimed'"
        " GROUP BY o.manager_id ORDER BY 1",
    ),
    "lapses-by-manager": Report(
        "Offers that nobody took in time, by manager",
        ("manager_id", *_LAPSE_COLUMNS),
        f"SELECT o.manager_id, {_LAPSES} {_OFFERED} GROUP BY o.manager_id ORDER BY 1",
    ),
    "lapses-by-rule": Report(
        "Offers that nobody took in time, by rule; null is no rule",
        ("rule", *_LAPSE_COLUMNS),
        f"SELECT o.rule, {_LAPSES} {_OFFERED} GROUP BY o.rule ORDER BY 1 NULLS LAST",
    ),
    "lapses-by-hour": Report(
        "Offers that nobody took in time, by hour of the day in UTC",
        ("hour", *_LAPSE_COLUMNS),
        f"SELECT extract(hour FROM o.offered_at)::int AS hour, {_LAPSES} {_OFFERED}"
        " GROUP BY 1 ORDER BY 1",
    ),
    "lapses-by-channel": Report(
        "Offers that nobody took in time, by channel",
        ("channel", *_LAPSE_COLUMNS),
        f"SELECT l.channel, {_LAPSES} {_OF_LEADS} GROUP BY l.channel ORDER BY 1",
    ),
    "conversion": Report(
        "Leads that ended, by week, manager and kind, and how many became deals",
        ("week", "manager_id", "kind", "ended", "converted", "converted_percent"),
        "SELECT date_trunc('week', ended_at)::date AS week, manager_id,"
        " CASE WHEN is_returning THEN 'returning' ELSE 'cold' END AS kind, count(*) AS ended,"
        " count(*) FILTER (WHERE state = 'converted') AS converted,"
        " round(100.0 * count(*) FILTER (WHERE state = 'converted') / count(*), 1)::float8"
        " AS converted_percent FROM leads WHERE ended_at >= $1 AND ended_at < $2"
        " AND manager_id IS NOT NULL AND ended_because IS DISTINCT FROM 'spam'"
        " AND ended_because IS DISTINCT FROM 'error' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    ),
    "fairness": Report(
        "Offers by manager beside an equal share by weight; people away get none and look unlucky",
        ("manager_id", "weight", "offers", "share_percent", "fair_percent"),
        "SELECT m.manager_id, m.weight, count(o.lead_id) AS offers,"
        " round(100.0 * count(o.lead_id) / greatest(sum(count(o.lead_id)) OVER (), 1), 1)::float8"
        " AS share_percent, round(100.0 * m.weight / sum(m.weight) OVER (), 1)::float8"
        " AS fair_percent FROM managers AS m LEFT JOIN offers AS o ON o.manager_id = m.manager_id"
        " AND o.offered_at >= $1 AND o.offered_at < $2 WHERE m.is_active"
        " GROUP BY m.manager_id, m.weight ORDER BY 1",
    ),
}


async def rows_of(
    tx: Connection, report: Report, since: datetime, until: datetime
) -> Sequence[dict[str, Any]]:
    """The rows of a report; `until` is not part of it."""
    return [dict(row) for row in await tx.fetch(report.sql, since, until)]
