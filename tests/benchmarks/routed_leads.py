"""A routing database as a company of fifty managers has it, and leads to come into it."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg

from libs.shared import migrations
from libs.shared.database import Connection
from services.routing.choosing.rule_set import Conditions, Goal, Rule, RuleSet, Strategy
from tests.benchmarks.servers import Servers, new_database

MANAGERS = 50
TEAMS = ("istanbul", "ekaterinburg", "complex", "returning")

_MANAGERS = """
    INSERT INTO managers (manager_id, name, created_at, version, languages, skills)
    SELECT uuidv7(), 'Manager ' || n, now(), 1, ARRAY['ru', 'tr'],
        jsonb_build_object('crm', n % 5 + 1)
    FROM generate_series(1, $1::int) AS n
"""
_SHIFTS = "INSERT INTO shifts SELECT uuidv7(), manager_id, now() - interval '1 hour' FROM managers"
_TEAM = "INSERT INTO teams VALUES ($1, $1, now())"
_MEMBERS = """
    INSERT INTO team_members SELECT $1, manager_id FROM managers
    WHERE substr(name, 9)::int % 4 = $2
"""
_RULES = """
    WITH retired AS (UPDATE rule_sets SET status = 'retired' WHERE version = 1)
    SELECT 1
"""
_ACTIVATE = """
    INSERT INTO rule_sets
    VALUES (2, 'active', $1::text::jsonb, 'bench', now(), 'bench', now(), 'bench')
"""
FILL = """
    INSERT INTO leads (lead_id, client_id, source, channel, received_at, is_returning, city, domain,
        language, complexity, utm, alert_at, state, due_at)
    SELECT uuidv7(), uuidv7(), 'site', (ARRAY['form', 'phone'])[n % 2 + 1], $2, n % 5 = 0,
        (ARRAY['Казань', 'Пермь', 'Москва'])[n % 3 + 1],
        (ARRAY['baza.ru', 'baza.com.tr', 'baza.de'])[n % 3 + 1], 'ru',
        (ARRAY['typical', 'complex'])[(n % 7 = 0)::int + 1], '{"source": "yandex"}',
        $2::timestamptz + interval '1 day', 'waiting', $2::timestamptz + n * $3::interval
    FROM generate_series(1, $1::int) AS n
"""

_HISTORY = """
    INSERT INTO leads (lead_id, client_id, source, channel, received_at, state, manager_id, epoch,
        ended_at)
    SELECT uuidv7(), uuidv7(), 'site', 'form', now() - interval '30 days', 'converted', manager_id,
        1, now() - interval '29 days'
    FROM managers, generate_series(1, $1::int / (SELECT count(*) FROM managers))
"""
HISTORY = 20_000

RULES = RuleSet(
    rules=(
        Rule(
            name="Турция",
            conditions=Conditions(domains=(".tr",)),
            team="istanbul",
            fallback=("all",),
        ),
        Rule(
            name="Сложные",
            conditions=Conditions(complexities=("complex",)),
            team="complex",
            strategy=Strategy(kind="qualification", skill="crm"),
            fallback=("all",),
        ),
        Rule(
            name="Вернувшиеся",
            conditions=Conditions(is_returning=True),
            team="returning",
            strategy=Strategy(kind="load"),
            fallback=("all",),
        ),
        *(
            Rule(name=f"Кампания {n}", conditions=Conditions(utm={"campaign": (f"c{n}",)}))
            for n in range(5)
        ),
        Rule(
            name="Урал",
            conditions=Conditions(cities=("Пермь", "Екатеринбург"), channels=("form", "phone")),
            team="ekaterinburg",
            fallback=("all",),
        ),
    ),
    otherwise=Goal(),
)


async def routing_database(servers: Servers, name: str) -> str:
    """URL of a routing database with managers on shift, four teams, nine rules and a history."""
    url = await new_database(servers.postgres, name)
    await migrations.upgrade("routing", url)
    connection = await asyncpg.connect(url)
    await connection.execute(_MANAGERS, MANAGERS)
    await connection.execute(_SHIFTS)
    for place, team in enumerate(TEAMS):
        await connection.execute(_TEAM, team)
        await connection.execute(_MEMBERS, team, place)
    await connection.execute(_RULES)
    await connection.execute(_ACTIVATE, RULES.model_dump_json())
    await connection.execute(_HISTORY, HISTORY)
    policy = '{"most_open_leads": 100000}'
    await connection.execute(
        "INSERT INTO policies (name, version, body, changed_at, changed_by, reason)"
        " VALUES ('claims', 1, $1::text::jsonb, now(), 'bench', 'bench')",
        policy,
    )
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("CHECKPOINT")
    await connection.close()
    return url


async def waiting(
    connection: Connection, count: int, since: datetime, step: timedelta
) -> Sequence[datetime]:
    """Leads that are due one after the other; when each is."""
    await connection.execute(FILL, count, since, step)
    return [since + step * number for number in range(1, count + 1)]
