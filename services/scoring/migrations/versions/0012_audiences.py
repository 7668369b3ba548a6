"""Audiences and who belongs to them."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0012"
down_revision = "0011"

SQL = """
CREATE TABLE audiences (
    audience_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code text NOT NULL UNIQUE,
    version integer NOT NULL DEFAULT 1,
    body jsonb NOT NULL,
    is_on boolean NOT NULL DEFAULT true,
    average_minor double precision NOT NULL DEFAULT 0,
    due_at timestamptz,
    after_client_id uuid,
    counted_at timestamptz,
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL
);
CREATE INDEX ix_audiences_due_at ON audiences (due_at) WHERE due_at IS NOT NULL;
COMMENT ON COLUMN audiences.due_at IS 'When everybody is to be judged anew.';
COMMENT ON COLUMN audiences.average_minor IS 'What the base spent at a purchase, then.';

CREATE TABLE audience_members (
    audience_id integer NOT NULL REFERENCES audiences,
    client_id uuid NOT NULL,
    is_in boolean NOT NULL,
    seq integer NOT NULL,
    due_at timestamptz,
    changed_at timestamptz,
    PRIMARY KEY (audience_id, client_id)
) WITH (fillfactor = 80);
CREATE INDEX ix_audience_members_due_at ON audience_members (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX ix_audience_members_client_id ON audience_members (client_id) WHERE is_in;
COMMENT ON COLUMN audience_members.seq IS 'Odd: entered, even: left.';
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
