"""Segments that managers call wrong, what was decided about them, and overrides that expire."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0011"
down_revision = "0010"

SQL = """
ALTER TABLE scores ADD COLUMN override_segment text, ADD COLUMN override_until date;
COMMENT ON COLUMN scores.override_segment IS 'By an analyst''s word, up to the day override_until.';

CREATE TABLE segment_decisions (
    decision_id uuid PRIMARY KEY,
    verdict text NOT NULL CHECK (verdict IN ('rules_changed', 'overridden', 'rejected')),
    note text NOT NULL,
    rule_version integer REFERENCES rule_sets,
    override_segment text,
    override_until date,
    decided_at timestamptz NOT NULL,
    decided_by text NOT NULL
);
CREATE INDEX ix_segment_decisions_decided_at ON segment_decisions (decided_at);

CREATE TABLE segment_flags (
    flag_id uuid PRIMARY KEY,
    client_id uuid NOT NULL,
    raised_by uuid,
    raised_at timestamptz NOT NULL,
    reason text NOT NULL,
    note text NOT NULL,
    segment text NOT NULL,
    should_be text,
    rule_version integer NOT NULL,
    recency_days integer NOT NULL,
    frequency integer NOT NULL,
    monetary_minor bigint NOT NULL,
    decision_id uuid REFERENCES segment_decisions
);
CREATE UNIQUE INDEX uq_segment_flags_open ON segment_flags (client_id, raised_by) NULLS NOT DISTINCT
    WHERE decision_id IS NULL;
CREATE INDEX ix_segment_flags_open ON segment_flags (rule_version, segment, should_be)
    WHERE decision_id IS NULL;
CREATE INDEX ix_segment_flags_decision_id ON segment_flags (decision_id);
COMMENT ON TABLE segment_flags IS 'With the figures that the segment was given for.';
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
