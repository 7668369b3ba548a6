"""What a lead may be is one check that PostgreSQL reads quickly; dead leads are swept up early.

PostgreSQL reads the stored text of each CHECK anew for every statement: the three of a lead's row
took 20 of its 500 microseconds. They are one list in one constant now. No column changes its type:
statements that a running process has prepared would fail once.

Every lead leaves dead entries in front of those that wait. Autovacuum came after a fifth of the
table; a fifth of a million leads takes milliseconds to step over, at every look.
"""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0008"
down_revision = "0007"

# After each state: whether it has a manager, whether it has a time when it is due.
LEADS = """
ALTER TABLE leads DROP CONSTRAINT leads_state_check, DROP CONSTRAINT leads_manager_check,
    DROP CONSTRAINT leads_due_check,
    ADD CONSTRAINT leads_state_check CHECK (
        concat(state, num_nonnulls(manager_id), num_nonnulls(due_at)) = ANY ('{waiting01,offered11,
            claimed10,queued00,queued01,muted01,converted10,closed00,closed10}'::text[]));
ALTER TABLE leads SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0);
"""


def upgrade() -> None:
    run_sql(op.get_bind(), LEADS)
