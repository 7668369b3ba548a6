"""Whom managers have to speak with, as scoring tells: a part of what they have to do."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0005"
down_revision = "0004"

SQL = """
CREATE TABLE touches (
    client_id uuid PRIMARY KEY,
    touch_no integer NOT NULL,
    manager_id uuid,
    is_open boolean NOT NULL
);
CREATE INDEX ix_touches_manager_id ON touches (manager_id) WHERE is_open AND manager_id IS NOT NULL;
COMMENT ON TABLE touches IS 'The newest touch of each client that scoring told of.';
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
