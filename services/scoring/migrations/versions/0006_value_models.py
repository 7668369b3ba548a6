"""Models of how the base buys and spends, and when the next is due."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0006"
down_revision = "0005"

SQL = """
CREATE TABLE value_models (
    version integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fitted_at timestamptz NOT NULL,
    clients integer NOT NULL,
    currency text NOT NULL,
    model jsonb NOT NULL,
    log_likelihood double precision NOT NULL
);
CREATE TABLE value_fitting (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    due_at timestamptz,
    problem text
);
INSERT INTO value_fitting DEFAULT VALUES;
COMMENT ON COLUMN value_fitting.problem IS 'Why the last attempt gave no model.';
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
