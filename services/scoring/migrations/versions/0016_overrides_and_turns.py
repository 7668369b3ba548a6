"""Every override that was ever given, and whose turn it is to be given a client of the queue."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0016"
down_revision = "0015"

SQL = """
CREATE TABLE segment_overrides (
    override_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id uuid NOT NULL,
    given_at timestamptz NOT NULL,
    segment text,
    until date
);
CREATE INDEX ix_segment_overrides_client_id ON segment_overrides
    (client_id, given_at DESC, override_id DESC);
COMMENT ON COLUMN segment_overrides.segment IS 'Null: taken back.';

INSERT INTO segment_overrides (client_id, given_at, segment, until)
SELECT client_id, at, segment, until FROM (
    SELECT f.client_id, d.decided_at AS at, d.override_segment AS segment, d.override_until AS until
    FROM segment_decisions AS d JOIN segment_flags AS f USING (decision_id)
    WHERE d.verdict = 'overridden' GROUP BY d.decision_id, f.client_id
    UNION ALL
    SELECT subject_id::uuid, at, NULL, NULL FROM audit_log
    WHERE action = 'segment_override.taken_back' AND subject_type = 'client'
) AS given ORDER BY at;

CREATE TABLE queue_turns (
    manager_id uuid PRIMARY KEY,
    turn bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE queue_turns IS
    'Counts what a manager was given; two who ask at once cannot both have seen the same turn.';
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
