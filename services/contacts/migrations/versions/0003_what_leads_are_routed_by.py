"""What a lead is routed by beside its city and language, and how it ends."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0003"
down_revision = "0002"

SQL = """
ALTER TABLE leads ADD COLUMN region text, ADD COLUMN domain text, ADD COLUMN amount_minor bigint,
    ADD COLUMN currency text, ADD COLUMN complexity text;
ALTER TABLE leads DROP CONSTRAINT leads_state_check;
ALTER TABLE leads ADD CONSTRAINT leads_state_check CHECK (state IN
    ('received', 'assigned', 'claimed', 'waiting', 'converted', 'closed'));
COMMENT ON COLUMN leads.step IS
    '1 assigned, 2 claimed, 3 ended, 4 escalated, 5 converted, 6 closed; in its epoch.';
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
