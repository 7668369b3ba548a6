"""What cards say of clients, plans of touches, and what became of them."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0010"
down_revision = "0006"

SQL = """
CREATE TABLE clients (
    client_id uuid PRIMARY KEY,
    version integer NOT NULL,
    owner_id uuid,
    kind text,
    status text,
    city text,
    language text,
    tags text[] NOT NULL DEFAULT '{}',
    created_at timestamptz,
    is_archived boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE clients IS 'The newest card that contacts told of, without personal data.';

CREATE TABLE touch_plans (
    client_id uuid PRIMARY KEY,
    touch_no integer NOT NULL,
    state text NOT NULL CHECK (state IN ('none', 'waiting', 'due', 'overdue')),
    owner_id uuid,
    queue_of uuid NOT NULL GENERATED ALWAYS AS (
        coalesce(owner_id, '00000000-0000-0000-0000-000000000000')) STORED,
    segment text,
    priority integer NOT NULL,
    value_minor bigint NOT NULL,
    due_on date,
    opens_at timestamptz,
    closes_at timestamptz,
    due_at timestamptz,
    leased_by uuid,
    leased_at timestamptz,
    leased_until timestamptz,
    lease_no integer NOT NULL DEFAULT 0,
    is_in_hand boolean NOT NULL DEFAULT false
) WITH (fillfactor = 80);
CREATE INDEX ix_touch_plans_due_at ON touch_plans (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX ix_touch_plans_queue_of ON touch_plans
    (queue_of, priority, state DESC, value_minor DESC, client_id) WHERE state IN ('due', 'overdue');
CREATE INDEX ix_touch_plans_queue ON touch_plans
    (priority, state DESC, value_minor DESC, client_id) WHERE state IN ('due', 'overdue');
CREATE INDEX ix_touch_plans_leased_by ON touch_plans (leased_by) WHERE leased_by IS NOT NULL;
COMMENT ON COLUMN touch_plans.queue_of IS
    'The owner; zeros are the common queue: an index is not taken as ordered behind IS NULL.';
COMMENT ON COLUMN touch_plans.touch_no IS 'Counts a client''s touches; events carry it.';
COMMENT ON COLUMN touch_plans.due_at IS 'When the state changes by time alone.';
COMMENT ON COLUMN touch_plans.value_minor IS 'Money in the period when it was planned.';

CREATE TABLE touch_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id uuid NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE touch_changes IS 'Clients whose next touch has to be planned anew.';

CREATE TABLE touch_replans (
    rule_version integer PRIMARY KEY,
    due_at timestamptz,
    after_client_id uuid
);
COMMENT ON TABLE touch_replans IS 'Everybody is planned anew after a change of rules.';

CREATE TABLE touch_log (
    client_id uuid NOT NULL,
    touch_no integer NOT NULL,
    manager_id uuid,
    segment text NOT NULL,
    due_on date NOT NULL,
    closes_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('kept', 'late', 'void')),
    PRIMARY KEY (client_id, touch_no)
);
CREATE INDEX ix_touch_log_due_on ON touch_log (due_on);
COMMENT ON COLUMN touch_log.outcome IS
    'kept: spoken with by the end of the day; late: afterwards; void: not asked for any more.';

CREATE TABLE manager_days (
    manager_id uuid NOT NULL,
    day date NOT NULL,
    touches integer NOT NULL,
    PRIMARY KEY (manager_id, day)
);

ALTER TABLE touches ADD COLUMN last_touch_by uuid, ADD COLUMN promised text,
    ADD COLUMN promised_until date, ADD COLUMN promised_at timestamptz;
COMMENT ON COLUMN touches.promised IS 'What was promised last. Personal data.';

INSERT INTO touch_changes (client_id) SELECT client_id FROM scores;
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
