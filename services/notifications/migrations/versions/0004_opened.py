"""When a message was first opened, as its provider tells."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_sql(op.get_bind(), "ALTER TABLE deliveries ADD COLUMN opened_at timestamptz")
