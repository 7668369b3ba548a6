"""Clients and meetings as heard, reminders, templates, deliveries."""

from alembic import op

from libs.shared.migrations import create_plumbing, run_sql

revision = "0001"
down_revision = None

SQL = """
CREATE TABLE clients (
    client_id uuid PRIMARY KEY,
    version integer NOT NULL,
    name text NOT NULL,
    email text,
    phone text,
    messengers jsonb NOT NULL DEFAULT '{}',
    language text
);
COMMENT ON TABLE clients IS 'What client.created and client.changed said last. Personal data.';
COMMENT ON COLUMN clients.phone IS 'The primary one, E.164.';

CREATE TABLE meetings (
    interaction_id uuid PRIMARY KEY,
    client_id uuid NOT NULL,
    version integer NOT NULL,
    state text NOT NULL CHECK (state IN ('planned', 'cancelled', 'held')),
    kind text,
    starts_at timestamptz,
    topic text NOT NULL DEFAULT '',
    manager_id uuid,
    CONSTRAINT ck_meetings_starts CHECK (state <> 'planned' OR starts_at IS NOT NULL)
);
CREATE INDEX ix_meetings_client_id ON meetings (client_id);
COMMENT ON COLUMN meetings.version IS 'Of the interaction; a message with a lower one is stale.';
COMMENT ON COLUMN meetings.kind IS 'Null where it was cancelled before it was heard of.';

CREATE TABLE reminders (
    reminder_id uuid PRIMARY KEY,
    interaction_id uuid NOT NULL,
    interaction_version integer NOT NULL,
    client_id uuid NOT NULL,
    stage text NOT NULL,
    channel text NOT NULL CHECK (channel IN ('email', 'second_channel')),
    template text NOT NULL,
    policy_version integer NOT NULL,
    planned_for timestamptz NOT NULL,
    due_at timestamptz,
    state text NOT NULL CHECK (state IN
        ('planned', 'sending', 'sent', 'failed', 'unknown', 'cancelled', 'skipped')),
    reason text,
    changed_at timestamptz NOT NULL,
    CONSTRAINT uq_reminders_stage UNIQUE (interaction_id, interaction_version, stage),
    CONSTRAINT ck_reminders_due CHECK ((due_at IS NOT NULL) = (state = 'planned'))
);
CREATE INDEX ix_reminders_due_at ON reminders (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX ix_reminders_client_id ON reminders (client_id, reminder_id);
COMMENT ON COLUMN reminders.planned_for IS 'The instant that the policy asks for.';
COMMENT ON COLUMN reminders.due_at IS 'When to look at it next; only while it is planned.';
COMMENT ON COLUMN reminders.reason IS 'Why it was cancelled, skipped or failed.';

CREATE TABLE templates (
    code text NOT NULL,
    channel text NOT NULL CHECK (channel IN ('email', 'second_channel')),
    language text NOT NULL,
    version integer NOT NULL CHECK (version > 1),
    subject text NOT NULL,
    body text NOT NULL,
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL,
    PRIMARY KEY (code, channel, language, version)
);
COMMENT ON TABLE templates IS 'Changes by the company; version 1 is what Baza ships, in the code.';

CREATE TABLE deliveries (
    message_id uuid PRIMARY KEY,
    reminder_id uuid NOT NULL UNIQUE,
    client_id uuid NOT NULL,
    interaction_id uuid NOT NULL,
    interaction_version integer NOT NULL,
    channel text NOT NULL CHECK (channel IN ('email', 'second_channel')),
    template text NOT NULL,
    template_version integer NOT NULL,
    language text NOT NULL,
    address text,
    subject text NOT NULL,
    body text NOT NULL,
    state text NOT NULL CHECK (state IN
        ('queued', 'sending', 'sent', 'failed', 'unknown', 'cancelled')),
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz,
    leased_until timestamptz,
    may_have_gone boolean NOT NULL DEFAULT false,
    provider_id text,
    reason text,
    created_at timestamptz NOT NULL,
    settled_at timestamptz,
    CONSTRAINT ck_deliveries_due CHECK ((due_at IS NOT NULL) = (state = 'queued')),
    CONSTRAINT ck_deliveries_lease CHECK ((leased_until IS NOT NULL) = (state = 'sending')),
    CONSTRAINT ck_deliveries_address
        CHECK ((address IS NOT NULL) = (state IN ('queued', 'sending')))
);
CREATE INDEX ix_deliveries_due_at ON deliveries (channel, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX ix_deliveries_leased_until ON deliveries (channel, leased_until)
    WHERE leased_until IS NOT NULL;
CREATE INDEX ix_deliveries_client_id ON deliveries (client_id, message_id);
CREATE INDEX ix_deliveries_interaction_id ON deliveries (interaction_id);
COMMENT ON COLUMN deliveries.message_id IS 'Message-ID of the mail, id at the second channel.';
COMMENT ON COLUMN deliveries.address IS 'Where it goes; forgotten when it is settled.';
COMMENT ON COLUMN deliveries.may_have_gone IS 'An attempt ended without the provider''s word.';
COMMENT ON COLUMN deliveries.due_at IS 'When to try next, by the suite''s clock.';
COMMENT ON COLUMN deliveries.leased_until IS
    'Real time, not the sandbox''s: until then the worker that took it may be sending it.';
"""


def upgrade() -> None:
    create_plumbing(op.get_bind())
    run_sql(op.get_bind(), SQL)
