"""Purchases, rule sets, scores, segment history."""

from alembic import op

from libs.shared.migrations import create_plumbing, run_sql

revision = "0001"
down_revision = None

SQL = """
CREATE TABLE rule_sets (
    version integer PRIMARY KEY CHECK (version > 0),
    status text NOT NULL CHECK (status IN ('draft', 'active', 'retired')),
    body jsonb NOT NULL,
    cuts jsonb,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    activated_at timestamptz,
    activated_by text
);
CREATE UNIQUE INDEX uq_rule_sets_active ON rule_sets (status) WHERE status = 'active';

CREATE TABLE purchases (
    deal_id uuid PRIMARY KEY,
    client_id uuid NOT NULL,
    day date NOT NULL,
    closed_at timestamptz NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    returned_minor bigint NOT NULL DEFAULT 0,
    is_returned boolean NOT NULL DEFAULT false
);
CREATE INDEX ix_purchases_client_id ON purchases (client_id, day)
    INCLUDE (amount_minor, returned_minor, currency, is_returned);
COMMENT ON COLUMN purchases.day IS 'The company''s day of closed_at when it was heard.';
COMMENT ON COLUMN purchases.amount_minor IS 'Minor units of currency, before returns.';

CREATE TABLE scores (
    client_id uuid PRIMARY KEY,
    seq integer NOT NULL DEFAULT 0,
    segment text,
    recency_score smallint,
    frequency_score smallint,
    monetary_score smallint,
    last_day date,
    frequency integer,
    monetary_minor bigint,
    as_of date NOT NULL,
    rule_version integer NOT NULL,
    due_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX ix_scores_due_at ON scores (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX ix_scores_rule_version ON scores (rule_version);
CREATE INDEX ix_scores_queue ON scores (segment, monetary_minor DESC, client_id);
COMMENT ON COLUMN scores.due_at IS 'When the scores may change by age alone.';
COMMENT ON COLUMN scores.monetary_minor IS 'In the period, minor units of the reporting currency.';

CREATE TABLE segment_history (
    client_id uuid NOT NULL,
    seq integer NOT NULL,
    old_segment text,
    new_segment text,
    recency_score smallint,
    frequency_score smallint,
    monetary_score smallint,
    rule_version integer NOT NULL,
    as_of date NOT NULL,
    changed_at timestamptz NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (client_id, seq)
);

CREATE TABLE touches (
    client_id uuid PRIMARY KEY,
    last_touch_at timestamptz NOT NULL
);
COMMENT ON TABLE touches IS 'When somebody last spoke with a client, buyer or not.';

CREATE TABLE rescorings (
    rescoring_id uuid PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('running', 'finished')),
    requested_at timestamptz NOT NULL,
    requested_by text NOT NULL,
    due_at timestamptz,
    after_client_id uuid,
    checked integer NOT NULL DEFAULT 0,
    mismatches integer NOT NULL DEFAULT 0,
    history_mismatches integer NOT NULL DEFAULT 0,
    finished_at timestamptz
);
CREATE INDEX ix_rescorings_due_at ON rescorings (due_at) WHERE due_at IS NOT NULL;
"""


def upgrade() -> None:
    create_plumbing(op.get_bind())
    run_sql(op.get_bind(), SQL)
