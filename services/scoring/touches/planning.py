"""When each client is to be spoken with next, in whose queue and how high up.

A plan follows from the client's segment and its SLA (`touch_sla.py`), the last purchase, the last
touch and the card's owner. Whoever changes one of these notes the client (`changes.py`); three
seconds later all that were noted meanwhile are planned anew, many in one transaction. A touch moves
the plan at once. A plan whose due day stays the same is the same touch: its state, its events and
the lease on it go on.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import asyncpg

from libs.shared import outbox
from libs.shared.database import Connection
from libs.shared.events import TouchEnded
from libs.shared.timers import Timer
from services.scoring.audiences.membership import judge_changed
from services.scoring.rules import Rules
from services.scoring.rules_in_force import rules_in_force
from services.scoring.touch_sla import arrays_of, last_day_of_interest

BATCH = 2000
PIECE = 50  # where fewer than a batch wait: while they are planned, others hear and are answered
RESTS = 19.0  # and after each piece so many times as long
SETTLES_AFTER_SECONDS = 3  # purchases come in swarms: one plan for all of them

_TAKE = """
    DELETE FROM touch_changes WHERE id = ANY(ARRAY(
        SELECT id FROM touch_changes ORDER BY id LIMIT (
            SELECT CASE WHEN count(*) < $1 THEN $2 ELSE $1 END
            FROM (SELECT FROM touch_changes LIMIT $1) AS waiting
        ) FOR UPDATE SKIP LOCKED))
    RETURNING client_id
"""  # no join, as in relay.py: this table is empty most of the time, too
# Everybody has a row before any is computed: its lock is what two planners meet at.
_ENTER = """
    INSERT INTO touch_plans (client_id, touch_no, state, priority, value_minor)
    SELECT client_id, 0, 'none', 1000, 0 FROM scores
    WHERE client_id = ANY($1::uuid[]) AND segment IS NOT NULL AND NOT EXISTS (
        SELECT FROM touch_plans WHERE touch_plans.client_id = scores.client_id)
    ORDER BY client_id ON CONFLICT DO NOTHING
"""
_LOCK = "SELECT FROM touch_plans WHERE client_id = ANY($1::uuid[]) ORDER BY client_id FOR UPDATE"
# width_bucket tells how many working days lie up to and including a day, as WorkingDays does.
_PLAN = """
    WITH w AS MATERIALIZED ( -- or the arrays would be read from their texts for each client
        SELECT $8::text::int[] AS days, $9::text::bigint[] AS opens, $10::text::bigint[] AS closes
    ), facts AS (
        SELECT p.client_id, s.segment, sla.priority, coalesce(s.monetary_minor, 0) AS value_minor,
            c.owner_id, t.last_touch_at, t.last_touch_by, sla.every, sla.unit, sla.same_day,
            sla.before_expected,
            s.last_day - date '1970-01-01' AS bought_on,
            (t.last_touch_at AT TIME ZONE $2)::date - date '1970-01-01' AS touched_on
        FROM touch_plans AS p JOIN scores AS s USING (client_id)
        LEFT JOIN touches AS t USING (client_id) LEFT JOIN clients AS c USING (client_id)
        LEFT JOIN unnest($3::text[], $4::int[], $5::int[], $6::text[], $7::boolean[], $11::int[])
            AS sla (segment, priority, every, unit, same_day, before_expected)
            ON sla.segment = s.segment AND NOT coalesce(c.is_archived, false)
        WHERE p.client_id = ANY($1::uuid[])
    ), bought AS ( -- habits as habit_of() has them; read only where an SLA goes by them
        SELECT client_id, day - date '1970-01-01' AS day,
            day - lag(day) OVER (PARTITION BY client_id ORDER BY day) AS distance
        FROM (SELECT DISTINCT client_id, day FROM facts JOIN purchases USING (client_id)
            WHERE before_expected IS NOT NULL AND NOT is_returned) AS days
    ), distances AS (
        SELECT client_id, day, distance, 1 AS strictness, $12 AS least FROM bought
        UNION ALL SELECT client_id, day, day - lag(day) OVER (PARTITION BY client_id ORDER BY day),
            $13, $14 - 1 FROM bought WHERE distance IS NULL OR distance > $15
    ), habits AS (
        SELECT DISTINCT ON (client_id) client_id, last_day + round(middle)::int AS expected_on
        FROM (
            SELECT client_id, strictness, max(day) AS last_day,
                percentile_cont(0.25) WITHIN GROUP (ORDER BY distance) AS low,
                percentile_cont(0.5) WITHIN GROUP (ORDER BY distance) AS middle,
                percentile_cont(0.75) WITHIN GROUP (ORDER BY distance) AS high
            FROM distances GROUP BY client_id, strictness, least HAVING count(distance) >= least
        ) AS spread WHERE (high - low) * strictness <= middle ORDER BY client_id, strictness
    ), expected AS (
        SELECT client_id, width_bucket(expected_on - before_expected, w.days) AS expected_place
        FROM facts JOIN habits USING (client_id) CROSS JOIN w
    ), placed AS (
        SELECT facts.*, w.*, CASE WHEN same_day AND coalesce(touched_on < bought_on, true)
                THEN width_bucket(bought_on - 1, w.days) + 1
            ELSE least(
                CASE WHEN unit = 'days'
                    THEN width_bucket(greatest(bought_on, touched_on) + every - 1, w.days) + 1
                ELSE width_bucket(greatest(bought_on, touched_on), w.days) + every END,
                CASE WHEN w.days[expected_place] > greatest(bought_on, touched_on)
                    THEN expected_place END
            ) END AS place
        FROM facts CROSS JOIN w LEFT JOIN expected USING (client_id)
    ), new AS (
        SELECT client_id, segment, priority, value_minor, owner_id, last_touch_at, last_touch_by,
            date '1970-01-01' + days[known_place] AS due_on,
            to_timestamp(opens[known_place]) AS opens_at,
            to_timestamp(closes[known_place]) AS closes_at
        FROM (SELECT placed.*, CASE WHEN place IS NOT NULL THEN least(place, cardinality(days)) END
            AS known_place FROM placed) AS placed
    ), ended AS (
        INSERT INTO touch_log (client_id, touch_no, manager_id, segment, due_on, closes_at,
            ended_at, outcome)
        SELECT p.client_id, p.touch_no,
            CASE WHEN new.last_touch_at >= p.opens_at THEN new.last_touch_by ELSE p.owner_id END,
            p.segment, p.due_on, p.closes_at, greatest(new.last_touch_at, p.opens_at),
            CASE WHEN coalesce(new.last_touch_at < p.opens_at, true) THEN 'void'
                WHEN new.last_touch_at < p.closes_at THEN 'kept' ELSE 'late' END
        FROM new CROSS JOIN LATERAL ( -- by key: in the morning all become due at once, and
            -- statistics of the night make the index of those that are due look like nothing
            SELECT * FROM touch_plans AS p WHERE p.client_id = new.client_id OFFSET 0
        ) AS p
        WHERE p.state IN ('due', 'overdue') AND new.due_on IS DISTINCT FROM p.due_on
        ON CONFLICT DO NOTHING
        RETURNING client_id, touch_no, manager_id, segment, due_on, ended_at, outcome
    ), planned AS (
        UPDATE touch_plans AS p SET owner_id = new.owner_id, segment = new.segment,
            priority = coalesce(new.priority, p.priority), value_minor = new.value_minor,
            due_on = new.due_on, opens_at = new.opens_at, closes_at = new.closes_at,
            touch_no = p.touch_no
                + (new.due_on IS NOT NULL AND new.due_on IS DISTINCT FROM p.due_on)::int,
            state = CASE WHEN new.due_on IS NULL THEN 'none' WHEN new.due_on = p.due_on THEN p.state
                ELSE 'waiting' END,
            due_at = CASE WHEN new.due_on IS NULL OR (new.due_on = p.due_on AND p.state = 'overdue')
                    THEN NULL
                WHEN new.due_on = p.due_on AND p.state = 'due' THEN new.closes_at
                ELSE new.opens_at END,
            leased_by = CASE WHEN new.due_on = p.due_on THEN p.leased_by END,
            leased_at = CASE WHEN new.due_on = p.due_on THEN p.leased_at END,
            leased_until = CASE WHEN new.due_on = p.due_on THEN p.leased_until END
        FROM new WHERE p.client_id = new.client_id
            AND (p.owner_id, p.segment, p.priority, p.value_minor, p.due_on, p.opens_at,
                p.closes_at)
                IS DISTINCT FROM (new.owner_id, new.segment, coalesce(new.priority, p.priority),
                    new.value_minor, new.due_on, new.opens_at, new.closes_at)
    )
    SELECT * FROM ended ORDER BY client_id
"""
_REPLANS = """
    SELECT rule_version, after_client_id FROM touch_replans WHERE due_at <= $1
    ORDER BY rule_version LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_STRETCH = """
    SELECT client_id FROM scores WHERE $1::uuid IS NULL OR client_id > $1
    ORDER BY client_id LIMIT $2
"""


async def plan(tx: Connection, clients: Iterable[UUID], rules: Rules, now: datetime) -> None:
    """Plan the next touch of each of these clients; who has no score needs none.

    Args:
        now: Only says how far ahead working days are looked for: a later instant gives the same.
    """
    wanted = sorted(set(clients))
    treatment = rules.rule_set.treatment()
    slas = [rule.sla for rule in treatment.values()]
    habits = rules.rule_set.habits
    until = last_day_of_interest(slas, rules.day_of(now))
    await tx.execute(_ENTER, wanted)
    await tx.execute(_LOCK, wanted)
    ended = await tx.fetch(
        _PLAN,
        wanted,
        rules.rule_set.zone,
        list(treatment),
        [rule.priority for rule in treatment.values()],
        [sla.every for sla in slas],
        [sla.unit for sla in slas],
        [sla.same_working_day for sla in slas],
        *arrays_of(rules.rule_set.calendar.model_dump_json(), until),
        [sla.before_expected for sla in slas],
        habits.least_intervals,
        habits.season_strictness,
        habits.least_seasons,
        habits.season_pause_days,
    )
    await outbox.add_all(tx, [_ended(row, now) for row in ended])
    await judge_changed(tx, wanted, rules, now)


def _ended(row: asyncpg.Record, now: datetime) -> TouchEnded:
    is_void = row["outcome"] == "void"  # then the plan ended it, nobody's word
    return TouchEnded(
        client_id=row["client_id"],
        touch_no=row["touch_no"],
        manager_id=row["manager_id"],
        segment=row["segment"],
        due_on=row["due_on"],
        outcome=row["outcome"],
        occurred_at=now if is_void else row["ended_at"],
    )


async def plan_changed_clients(tx: Connection, now: datetime) -> int:
    """Plan anew whoever was noted; at most `BATCH` notes."""
    changed = await tx.fetch(_TAKE, BATCH, PIECE)
    if changed:
        await plan(tx, (row["client_id"] for row in changed), await rules_in_force(tx), now)
    return len(changed)


async def plan_everybody(tx: Connection, rule_version: int, now: datetime) -> None:
    """Have all touches planned anew: SLAs, priorities or working days are others now."""
    await tx.execute(
        "INSERT INTO touch_replans (rule_version, due_at) VALUES ($1, $2)"
        " ON CONFLICT (rule_version) DO UPDATE SET due_at = $2, after_client_id = NULL",
        rule_version,
        now,
    )


async def plan_next_stretch(tx: Connection, now: datetime) -> int:
    """Go on with planning everybody; how many clients, and at least 1 while there is work."""
    job = await tx.fetchrow(_REPLANS, now)
    if job is None:
        return 0
    clients = [row["client_id"] for row in await tx.fetch(_STRETCH, job["after_client_id"], BATCH)]
    if clients:
        await plan(tx, clients, await rules_in_force(tx), now)
    await tx.execute(
        "UPDATE touch_replans SET after_client_id = coalesce($2, after_client_id),"
        " due_at = CASE WHEN $2::uuid IS NULL THEN NULL ELSE due_at END WHERE rule_version = $1",
        job["rule_version"],
        clients[-1] if clients else None,
    )
    return max(len(clients), 1)


# At once when the oldest note has settled, in real time; the loop looks again until then.
_SETTLED = f"""
    SELECT CASE WHEN changed_at <= clock_timestamp() - interval '{SETTLES_AFTER_SECONDS} s'
        THEN timestamptz 'epoch' END FROM touch_changes ORDER BY id LIMIT 1
"""
PLANNING = Timer(
    "touch_planning", _SETTLED, plan_changed_clients, is_patient=True, rests=RESTS, by_keys=True
)
REPLANNING = Timer(
    "touch_replanning", "SELECT min(due_at) FROM touch_replans", plan_next_stretch, by_keys=True
)
