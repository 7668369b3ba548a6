"""Pauses that are over are kept, for what is asked of the past."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0004"
down_revision = "0003"

SQL = """
CREATE TABLE pauses (
    manager_id uuid NOT NULL REFERENCES managers,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL CHECK (ends_at >= starts_at),
    PRIMARY KEY (manager_id, starts_at)
);
COMMENT ON TABLE pauses IS 'Pauses that are over; one that lasts stands with its manager.';
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
