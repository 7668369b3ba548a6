"""Managers and supervisors are told of leads and touches; the ledger holds what they were sent."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0003"
down_revision = "0002"

SQL = """
CREATE TABLE staff (
    staff_id uuid PRIMARY KEY,
    version integer NOT NULL,
    name text NOT NULL,
    email text,
    second_channel text,
    language text,
    is_supervisor boolean NOT NULL,
    is_active boolean NOT NULL,
    changed_at timestamptz NOT NULL
);
COMMENT ON TABLE staff IS 'Who works here and where they are reached. Personal data.';
COMMENT ON COLUMN staff.staff_id IS 'Of a manager: the manager_id of the events.';

CREATE TABLE alerts (
    alert_id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('lead_unanswered', 'touch_due', 'touch_overdue')),
    subject_id uuid NOT NULL,
    subject_no integer NOT NULL,
    client_id uuid NOT NULL,
    manager_id uuid,
    due_on date,
    since timestamptz NOT NULL,
    staff_id uuid NOT NULL,
    channel text NOT NULL CHECK (channel IN ('email', 'second_channel')),
    template text NOT NULL,
    policy_version integer NOT NULL,
    planned_for timestamptz NOT NULL,
    stale_at timestamptz NOT NULL,
    due_at timestamptz,
    state text NOT NULL CHECK (state IN
        ('planned', 'sending', 'sent', 'failed', 'unknown', 'cancelled')),
    reason text,
    over_at timestamptz,
    message_id uuid,
    changed_at timestamptz NOT NULL,
    CONSTRAINT uq_alerts_told UNIQUE (kind, subject_id, subject_no, staff_id, channel),
    CONSTRAINT ck_alerts_due CHECK ((due_at IS NOT NULL) = (state = 'planned'))
);
CREATE INDEX ix_alerts_due_at ON alerts (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX ix_alerts_staff_id_due_at ON alerts (staff_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX ix_alerts_subject_id ON alerts (subject_id);
CREATE INDEX ix_alerts_message_id ON alerts (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX ix_alerts_staff_id ON alerts (staff_id, alert_id);
COMMENT ON COLUMN alerts.subject_id IS 'The lead, or the client of a touch.';
COMMENT ON COLUMN alerts.subject_no IS 'Number of the touch; 0 for a lead.';
COMMENT ON COLUMN alerts.since IS 'When it happened.';
COMMENT ON COLUMN alerts.over_at IS 'When somebody had acted; it need not be told any more.';
COMMENT ON COLUMN alerts.message_id IS 'Of the message that tells it, with others or alone.';

ALTER TABLE deliveries
    ALTER COLUMN reminder_id DROP NOT NULL,
    ALTER COLUMN client_id DROP NOT NULL,
    ALTER COLUMN interaction_id DROP NOT NULL,
    ALTER COLUMN interaction_version DROP NOT NULL,
    ADD COLUMN staff_id uuid,
    ADD CONSTRAINT ck_deliveries_recipient CHECK (CASE WHEN staff_id IS NULL
        THEN num_nulls(reminder_id, client_id, interaction_id, interaction_version) = 0
        ELSE num_nonnulls(reminder_id, client_id, interaction_id, interaction_version) = 0 END);
CREATE INDEX ix_deliveries_staff_id ON deliveries (staff_id, message_id)
    WHERE staff_id IS NOT NULL;
COMMENT ON COLUMN deliveries.staff_id IS 'Who of the staff it goes to; null: it goes to a client.';
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
