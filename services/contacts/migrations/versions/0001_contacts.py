"""Client cards, interactions, promises, deals, leads."""

from alembic import op

from libs.shared.migrations import create_plumbing, run_sql

revision = "0001"
down_revision = None

SQL = """
CREATE TABLE clients (
    id uuid PRIMARY KEY,
    version integer NOT NULL DEFAULT 1,
    kind text NOT NULL CHECK (kind IN ('person', 'sole_proprietor', 'legal_entity')),
    full_name text NOT NULL,
    short_name text,
    name_search text NOT NULL,
    owner_id uuid,
    status text NOT NULL CHECK (status IN ('lead', 'active', 'paused', 'former')),
    phones text[] NOT NULL DEFAULT '{}',
    email text,
    email_search text,
    messengers jsonb NOT NULL DEFAULT '{}',
    address jsonb NOT NULL DEFAULT '{}',
    tags text[] NOT NULL DEFAULT '{}',
    note text,
    source text,
    external_id text,
    birthday date,
    language text,
    created_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    archived_at timestamptz,
    archive_reason text
) WITH (fillfactor = 90);
-- Without a list of pending entries: every new card looks for its phone, and would read that list.
CREATE INDEX ix_clients_phones ON clients USING gin (phones) WITH (fastupdate = off);
CREATE INDEX ix_clients_email_search ON clients (email_search, id) WHERE email_search IS NOT NULL;
CREATE UNIQUE INDEX uq_clients_external_id ON clients (source, external_id)
    WHERE external_id IS NOT NULL;
CREATE INDEX ix_clients_owner_id ON clients (owner_id, id) WHERE owner_id IS NOT NULL;
COMMENT ON COLUMN clients.phones IS 'E.164, the first is the primary one.';
COMMENT ON COLUMN clients.name_search IS 'Both names, case-folded by our own code.';
COMMENT ON COLUMN clients.email_search IS 'The whole address, case-folded.';
DO $$ BEGIN
    -- A substring of a name is found without this too, only by reading every row.
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
        CREATE EXTENSION IF NOT EXISTS pg_trgm;
        CREATE INDEX ix_clients_name_search ON clients USING gin (name_search gin_trgm_ops);
    END IF;
END $$;

CREATE FUNCTION cards_sharing(numbers text[], mail text, most integer) RETURNS text
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS
-- A plan that is made while the table is small would go on reading all of it when it is not.
$$ BEGIN
    RETURN coalesce('["' || (
        SELECT string_agg(id::text, '","' ORDER BY id) FROM (
            SELECT id FROM clients WHERE phones && numbers
            UNION SELECT id FROM clients WHERE email_search = mail LIMIT most
        ) AS found) || '"]', '[]');
END $$;
COMMENT ON FUNCTION cards_sharing IS 'Ids of cards with such a phone or e-mail, a JSON array.';

CREATE TABLE client_segments (
    client_id uuid PRIMARY KEY,
    segment text,
    seq integer NOT NULL,
    changed_at timestamptz NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX ix_client_segments_segment ON client_segments (segment, client_id);
COMMENT ON TABLE client_segments IS 'As heard from scoring; the version of the card does not move.';

CREATE TABLE interactions (
    id uuid PRIMARY KEY,
    client_id uuid NOT NULL REFERENCES clients,
    version integer NOT NULL DEFAULT 1,
    kind text NOT NULL,
    state text NOT NULL CHECK (state IN ('recorded', 'planned', 'held', 'cancelled')),
    direction text NOT NULL CHECK (direction IN ('incoming', 'outgoing', 'none')),
    at timestamptz NOT NULL,
    duration_minutes integer,
    topic text NOT NULL DEFAULT '',
    outcome text,
    objections text[] NOT NULL DEFAULT '{}',
    agreements text[] NOT NULL DEFAULT '{}',
    manager_id uuid,
    moves integer NOT NULL DEFAULT 0,
    reason text,
    source text,
    external_id text,
    recorded_by text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX ix_interactions_timeline ON interactions (client_id, at DESC, id DESC);
CREATE UNIQUE INDEX uq_interactions_external_id ON interactions (source, external_id)
    WHERE external_id IS NOT NULL;
COMMENT ON COLUMN interactions.at IS 'When it happened, or starts if it is planned.';
COMMENT ON COLUMN interactions.reason IS 'Of the last move or of the cancellation.';

CREATE TABLE promises (
    id uuid PRIMARY KEY,
    interaction_id uuid NOT NULL REFERENCES interactions,
    client_id uuid NOT NULL,
    owner_id uuid,
    text text NOT NULL,
    due_on date NOT NULL,
    kept_at timestamptz
);
CREATE INDEX ix_promises_open ON promises (due_on, id) WHERE kept_at IS NULL;
CREATE INDEX ix_promises_interaction_id ON promises (interaction_id);

CREATE TABLE deals (
    id uuid PRIMARY KEY,
    client_id uuid NOT NULL,
    version integer NOT NULL DEFAULT 1,
    state text NOT NULL CHECK (state IN ('open', 'won', 'lost')),
    title text,
    pipeline text NOT NULL,
    stage text NOT NULL,
    amount_minor bigint CHECK (amount_minor >= 0),
    currency text,
    returned_minor bigint NOT NULL DEFAULT 0,
    manager_id uuid,
    opened_at timestamptz NOT NULL,
    closed_at timestamptz,
    reason text,
    source text,
    external_id text,
    created_at timestamptz NOT NULL,
    CONSTRAINT ck_deals_returned CHECK (returned_minor BETWEEN 0 AND coalesce(amount_minor, 0))
);
CREATE INDEX ix_deals_client_id ON deals (client_id, id DESC);
CREATE UNIQUE INDEX uq_deals_external_id ON deals (source, external_id)
    WHERE external_id IS NOT NULL;
COMMENT ON TABLE deals IS 'client_id is checked by the writer: cards are archived, never deleted.';
COMMENT ON COLUMN deals.amount_minor IS 'Minor units of currency, before returns.';

CREATE TABLE reversals (
    id uuid PRIMARY KEY,
    deal_id uuid NOT NULL REFERENCES deals,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0 OR is_full),
    is_full boolean NOT NULL,
    reason text NOT NULL,
    reversed_at timestamptz NOT NULL,
    reversed_by text NOT NULL
);
CREATE INDEX ix_reversals_deal_id ON reversals (deal_id);

CREATE TABLE leads (
    id uuid PRIMARY KEY,
    client_id uuid NOT NULL REFERENCES clients,
    source text NOT NULL,
    channel text NOT NULL,
    name text,
    phones text[] NOT NULL DEFAULT '{}',
    email text,
    note text,
    product text,
    city text,
    language text,
    utm jsonb NOT NULL DEFAULT '{}',
    consents jsonb NOT NULL DEFAULT '{}',
    is_returning boolean NOT NULL,
    received_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'received'
        CHECK (state IN ('received', 'assigned', 'claimed', 'waiting')),
    manager_id uuid,
    epoch integer NOT NULL DEFAULT 0,
    step smallint NOT NULL DEFAULT 0,
    webhook_request_id bigint UNIQUE
);
CREATE INDEX ix_leads_client_id ON leads (client_id, id DESC);
COMMENT ON COLUMN leads.step IS '1 assigned, 2 claimed, 3 ended, 4 escalated; in its epoch.';
CREATE INDEX ix_webhook_requests_settled ON webhook_requests (id) WHERE outcome IS NOT NULL;
"""


def upgrade() -> None:
    create_plumbing(op.get_bind())
    run_sql(op.get_bind(), SQL)
