"""Views of pages are found by when they came, to be forgotten."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0005"
down_revision = "0004"

SQL = """
CREATE INDEX ix_page_views_received_at ON page_views USING brin (received_at);
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
