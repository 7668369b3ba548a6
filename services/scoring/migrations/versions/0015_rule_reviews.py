"""Reviews of the rules in force that ended with keeping them."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0015"
down_revision = "0014"

SQL = """
CREATE TABLE rule_reviews (
    review_id uuid PRIMARY KEY,
    rule_version integer NOT NULL REFERENCES rule_sets,
    note text NOT NULL,
    reviewed_at timestamptz NOT NULL,
    reviewed_by text NOT NULL
);
CREATE INDEX ix_rule_reviews_reviewed_at ON rule_reviews (reviewed_at);
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
