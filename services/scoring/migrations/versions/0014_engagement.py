"""What clients asked for and by which way, and which messages they opened."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0014"
down_revision = "0013"

SQL = """
CREATE TABLE asked_for (
    client_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('channel', 'source', 'product')),
    value text NOT NULL,
    PRIMARY KEY (client_id, kind, value)
);
COMMENT ON TABLE asked_for IS 'Of every lead of a client; values casefolded.';
INSERT INTO asked_for SELECT client_id, 'channel', lower(channel) FROM acquisitions;
INSERT INTO asked_for SELECT client_id, 'source', lower(source) FROM acquisitions;

CREATE TABLE messages (
    client_id uuid NOT NULL,
    message_id uuid NOT NULL,
    sent_at timestamptz,
    opened_at timestamptz,
    PRIMARY KEY (client_id, message_id)
);
CREATE INDEX ix_messages_sent_at ON messages (client_id, sent_at DESC);
COMMENT ON COLUMN messages.sent_at IS 'NULL: the opening was heard of first.';
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
