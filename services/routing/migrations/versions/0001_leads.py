"""Managers, shifts, leads and their offers."""

from alembic import op

from libs.shared.migrations import create_plumbing, run_sql

revision = "0001"
down_revision = None

SQL = """
CREATE TABLE managers (
    manager_id uuid PRIMARY KEY,
    name text NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    calendar jsonb,
    last_turn bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    version integer NOT NULL,
    due_at timestamptz
);
CREATE INDEX ix_managers_due_at ON managers (due_at) WHERE due_at IS NOT NULL;
COMMENT ON COLUMN managers.calendar IS 'Weekly hours; null: on shift only by the table shifts.';
COMMENT ON COLUMN managers.due_at IS 'When the calendar opens next.';
COMMENT ON COLUMN managers.last_turn IS 'Number of their last turn in the round robin.';

CREATE TABLE shifts (
    shift_id uuid PRIMARY KEY,
    manager_id uuid NOT NULL REFERENCES managers,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz CHECK (ends_at > starts_at),
    due_at timestamptz
);
CREATE INDEX ix_shifts_manager_id ON shifts (manager_id, starts_at);
CREATE INDEX ix_shifts_due_at ON shifts (due_at) WHERE due_at IS NOT NULL;
COMMENT ON COLUMN shifts.due_at IS 'When a planned shift begins; null once it has.';

CREATE TABLE leads (
    lead_id uuid PRIMARY KEY,
    client_id uuid NOT NULL,
    source text NOT NULL,
    channel text NOT NULL,
    owner_id uuid,
    state text NOT NULL CHECK (state IN ('waiting', 'offered', 'claimed', 'queued')),
    manager_id uuid,
    epoch integer NOT NULL DEFAULT 0,
    round integer NOT NULL DEFAULT 1,
    asked uuid[] NOT NULL DEFAULT '{}',
    received_at timestamptz NOT NULL,
    due_at timestamptz,
    claimed_at timestamptz,
    CHECK ((state IN ('offered', 'claimed')) = (manager_id IS NOT NULL)),
    CHECK ((state IN ('offered', 'waiting')) = (due_at IS NOT NULL))
) WITH (fillfactor = 80);
CREATE INDEX ix_leads_offered ON leads (due_at) WHERE state = 'offered';
CREATE INDEX ix_leads_waiting ON leads (due_at, lead_id) WHERE state = 'waiting';
CREATE INDEX ix_leads_queued ON leads (received_at, lead_id) WHERE state = 'queued';
CREATE INDEX ix_leads_manager_id ON leads (manager_id, lead_id) WHERE manager_id IS NOT NULL;
COMMENT ON COLUMN leads.epoch IS 'Number of the current or last offer; 0: never offered.';
COMMENT ON COLUMN leads.asked IS 'Managers who let it pass or gave it back in this round.';
COMMENT ON COLUMN leads.due_at IS 'offered: end of the claim window; waiting: when to offer it.';

CREATE TABLE offers (
    lead_id uuid NOT NULL REFERENCES leads,
    epoch integer NOT NULL,
    manager_id uuid NOT NULL,
    offered_at timestamptz NOT NULL,
    claim_until timestamptz NOT NULL,
    why text NOT NULL,
    ended_at timestamptz,
    ended_how text CHECK (ended_how IN ('claimed', 'lapsed', 'released', 'superseded')),
    PRIMARY KEY (lead_id, epoch)
);
CREATE UNIQUE INDEX uq_offers_open ON offers (lead_id) WHERE ended_at IS NULL;
"""


def upgrade() -> None:
    create_plumbing(op.get_bind())
    run_sql(op.get_bind(), SQL)
