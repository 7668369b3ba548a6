"""Leads that a bot or a complaint makes, reviews with a rating, pages that were viewed."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0004"
down_revision = "0003"

SQL = """
ALTER TABLE leads ADD COLUMN kind text NOT NULL DEFAULT 'request'
        CHECK (kind IN ('request', 'handoff', 'complaint')),
    ADD COLUMN interaction_id uuid;
COMMENT ON COLUMN leads.interaction_id IS
    'What was said before, in the timeline: the talk with a bot, the complaint.';
CREATE UNIQUE INDEX uq_leads_complaint ON leads (interaction_id) WHERE kind = 'complaint';

ALTER TABLE interactions ADD COLUMN rating smallint CHECK (rating BETWEEN 1 AND 5);

CREATE TABLE page_views (
    id uuid PRIMARY KEY,
    client_id uuid NOT NULL REFERENCES clients,
    site text NOT NULL,
    page text NOT NULL,
    viewed_at timestamptz NOT NULL,
    source text NOT NULL,
    external_id text NOT NULL,
    received_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX uq_page_views_external_id ON page_views (source, external_id);
COMMENT ON COLUMN page_views.page IS 'Path without query and fragment.';
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
