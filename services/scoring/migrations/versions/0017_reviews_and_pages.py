"""What clients think of us, and which pages they have looked at."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0017"
down_revision = "0016"

SQL = """
CREATE TABLE reviews (
    interaction_id uuid PRIMARY KEY,
    client_id uuid NOT NULL,
    rating smallint,
    given_at timestamptz NOT NULL
);
CREATE INDEX ix_reviews_client_id ON reviews (client_id);
COMMENT ON COLUMN reviews.rating IS 'NULL: words only.';

CREATE TABLE client_pages (
    client_id uuid NOT NULL,
    page text NOT NULL,
    last_viewed_at timestamptz NOT NULL,
    PRIMARY KEY (client_id, page)
);
COMMENT ON COLUMN client_pages.page IS 'Site and path: shop.example/price.';
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
