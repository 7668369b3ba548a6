"""When each return was made, so that the past can be told; how many purchases there are.

Of returns made before nothing is known but their sum: they count from the purchase on.
"""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0005"
down_revision = "0004"

SQL = """
CREATE TABLE returns (
    reversal_id uuid PRIMARY KEY,
    deal_id uuid NOT NULL,
    client_id uuid NOT NULL,
    reversed_at timestamptz NOT NULL,
    amount_minor bigint NOT NULL,
    is_full boolean NOT NULL
);
CREATE INDEX ix_returns_client_id ON returns (client_id);
COMMENT ON COLUMN returns.amount_minor IS 'Minor units of the purchase''s currency.';
INSERT INTO returns
SELECT deal_id, deal_id, client_id, closed_at, returned_minor, is_returned
FROM purchases WHERE returned_minor > 0 OR is_returned;

CREATE TABLE purchase_counts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    added bigint NOT NULL
);
COMMENT ON TABLE purchase_counts IS 'Their sum is the number of purchases not wholly returned.';
INSERT INTO purchase_counts (added) SELECT count(*) FROM purchases WHERE NOT is_returned;
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
