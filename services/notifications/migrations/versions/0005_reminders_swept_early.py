"""Reminders that were sent are swept up early.

Each leaves a dead entry in front of those that wait, over which every look has to step. Autovacuum
came after a fifth of the table, which may be hundreds of thousands.
"""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0005"
down_revision = "0004"

SQL = """
ALTER TABLE reminders SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0)
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
