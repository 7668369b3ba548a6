"""Where clients came from and what it cost."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0013"
down_revision = "0012"

SQL = """
CREATE TABLE acquisitions (
    client_id uuid PRIMARY KEY,
    channel text NOT NULL,
    source text NOT NULL,
    asked_at timestamptz NOT NULL
);
COMMENT ON TABLE acquisitions IS 'The first lead of each client.';

CREATE TABLE acquisition_costs (
    cost_id uuid PRIMARY KEY,
    channel text NOT NULL,
    cost_group text NOT NULL,
    first_day date NOT NULL,
    last_day date NOT NULL,
    amount_minor bigint NOT NULL,
    note text,
    entered_at timestamptz NOT NULL,
    entered_by text NOT NULL,
    CHECK (first_day <= last_day)
);
COMMENT ON COLUMN acquisition_costs.amount_minor IS 'Minor units of the reporting currency.';
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
