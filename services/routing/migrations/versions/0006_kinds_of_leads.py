"""Whether a lead is a request, a talk that a bot hands over, or a complaint, and what was said."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0006"
down_revision = "0005"

SQL = """
ALTER TABLE leads ADD COLUMN kind text NOT NULL DEFAULT 'request', ADD COLUMN interaction_id uuid;
COMMENT ON COLUMN leads.interaction_id IS 'In the client''s timeline, which contacts has.';
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
