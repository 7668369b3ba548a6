"""What new rules can be applied by without reading the purchases again.

With the first purchase day of the period a client's next boundary follows from the stored figures
alone. A change of rules remembers for itself how far it has come: a client whose ratings stay the
same is not written, so `scores.rule_version` cannot tell, and its index goes.
"""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0004"
down_revision = "0003"

SQL = """
ALTER TABLE scores ADD COLUMN oldest_day date, ADD COLUMN monthly_run smallint;
COMMENT ON COLUMN scores.oldest_day IS 'First purchase day in the period.';
COMMENT ON COLUMN scores.monthly_run IS 'Months in a row with a purchase, if any segment asks.';
UPDATE scores SET oldest_day = p.oldest_day FROM (
    SELECT client_id, min(day) AS oldest_day FROM scores JOIN purchases USING (client_id)
    WHERE NOT is_returned AND day > as_of - coalesce((
        SELECT (body ->> 'period_days')::int FROM rule_sets WHERE status = 'active'), 365)
    GROUP BY client_id
) AS p WHERE p.client_id = scores.client_id;

DROP INDEX ix_scores_rule_version;
COMMENT ON COLUMN scores.rule_version IS 'Under which it was written last.';

CREATE TABLE rule_previews (
    preview_id uuid PRIMARY KEY,
    version integer NOT NULL REFERENCES rule_sets,
    cuts jsonb NOT NULL,
    moves jsonb NOT NULL,
    made_at timestamptz NOT NULL,
    made_by text NOT NULL
);

CREATE TABLE rule_changes (
    version integer PRIMARY KEY REFERENCES rule_sets,
    counts_anew boolean NOT NULL,
    renames boolean NOT NULL,
    comes_nearer boolean NOT NULL,
    state text NOT NULL CHECK (state IN (
        'waiting', 'running', 'boundaries', 'finished', 'superseded')),
    due_at timestamptz,
    activated_at timestamptz NOT NULL,
    fence text[],
    after_client_id uuid,
    checked integer NOT NULL DEFAULT 0,
    moved integer NOT NULL DEFAULT 0,
    rated_at timestamptz,
    finished_at timestamptz
);
CREATE INDEX ix_rule_changes_due_at ON rule_changes (due_at) WHERE due_at IS NOT NULL;
COMMENT ON COLUMN rule_changes.fence IS 'Transactions that may still know the rules before.';

-- A change that was under way when this migration came goes on from the beginning.
INSERT INTO rule_changes (
    version, counts_anew, renames, comes_nearer, state, due_at, activated_at)
SELECT version, true, true, true, 'waiting', activated_at, activated_at FROM rule_sets
WHERE status = 'active' AND EXISTS (
    SELECT FROM scores WHERE rule_version < rule_sets.version);
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
