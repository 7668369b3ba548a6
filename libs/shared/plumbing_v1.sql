-- The tables that libs/shared needs in every service's database. Applied by the service's first
-- migration and never edited afterwards: a later change is plumbing_v2.sql and a new migration.

CREATE TABLE outbox (
    shard smallint NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    event_id uuid NOT NULL,
    topic text NOT NULL,
    also_topic text,
    key text NOT NULL,
    type text NOT NULL,
    time timestamptz NOT NULL,
    data bytea,
    correlation_id text,
    causation_id uuid,
    traceparent text,
    extra jsonb,
    PRIMARY KEY (shard, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE outbox IS 'Events committed with the state they tell of, until the broker has acknowledged them.';
COMMENT ON COLUMN outbox.shard IS 'crc32(key) modulo the number of shards; one relay at a time holds a shard.';
COMMENT ON COLUMN outbox.also_topic IS 'A compacted topic that gets the same message.';
COMMENT ON COLUMN outbox.data IS 'JSON; null is a tombstone.';

CREATE TABLE inbox (
    event_id uuid PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX ix_inbox_received_at ON inbox USING brin (received_at);
COMMENT ON TABLE inbox IS 'Events whose effects are in this database: hearing one again changes nothing.';

CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    key text,
    type text NOT NULL,
    headers jsonb NOT NULL,
    data bytea,
    state text NOT NULL CHECK (state IN ('poison', 'waiting', 'replaying', 'replayed', 'discarded')),
    reason text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    received_at timestamptz NOT NULL,
    resolved_at timestamptz,
    resolved_by text,
    UNIQUE (topic, partition, "offset")
);
CREATE INDEX ix_dead_letters_open ON dead_letters (key, id)
    WHERE state IN ('poison', 'waiting', 'replaying');
COMMENT ON COLUMN dead_letters.state IS 'poison: could not be handled; waiting: behind a poison of the same key; replaying: to be handled again by the worker.';

CREATE TABLE idempotency_keys (
    principal text NOT NULL,
    route text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    status smallint,
    body bytea,
    headers jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (principal, route, key)
) WITH (fillfactor = 80);
CREATE INDEX ix_idempotency_keys_created_at ON idempotency_keys USING brin (created_at);
COMMENT ON TABLE idempotency_keys IS 'Answers of commands, stored in the transaction of their effect.';
COMMENT ON COLUMN idempotency_keys.fingerprint IS 'sha256 of the request body; null status: not answered yet.';

CREATE TABLE policies (
    name text NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    body jsonb NOT NULL,
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL,
    reason text,
    PRIMARY KEY (name, version)
);
COMMENT ON TABLE policies IS 'What the company may change, every version kept; the highest is in force.';

CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject_type text NOT NULL,
    subject_id text NOT NULL,
    details jsonb NOT NULL DEFAULT '{}',
    correlation_id text
);
CREATE INDEX ix_audit_log_subject ON audit_log (subject_type, subject_id, id);
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$;
CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION refuse_audit_change();

CREATE TABLE webhook_requests (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    external_id text NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    received_at timestamptz NOT NULL,
    due_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    outcome text,
    UNIQUE (source, external_id)
);
CREATE INDEX ix_webhook_requests_due ON webhook_requests (due_at) WHERE due_at IS NOT NULL;
COMMENT ON TABLE webhook_requests IS 'Verified requests as they came, before anything is made of them.';
COMMENT ON COLUMN webhook_requests.due_at IS 'When to process it next; null once it is settled.';

CREATE TABLE sandbox_clock (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    advance interval NOT NULL
);
COMMENT ON TABLE sandbox_clock IS 'Sandbox mode only: the suite''s clock minus the real one.';
