"""Rules, teams, presence, loads and turns; decisions with all they were made from."""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0003"
down_revision = "0002"

MANAGERS = """
ALTER TABLE managers
    ADD COLUMN capacity integer CHECK (capacity >= 0),
    ADD COLUMN weight integer NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000),
    ADD COLUMN hourly_limit integer CHECK (hourly_limit >= 0),
    ADD COLUMN daily_limit integer CHECK (daily_limit >= 0),
    ADD COLUMN monthly_limit integer CHECK (monthly_limit >= 0),
    ADD COLUMN languages text[] NOT NULL DEFAULT '{}',
    ADD COLUMN zones text[] NOT NULL DEFAULT '{}',
    ADD COLUMN skills jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN paused_at timestamptz,
    ADD COLUMN paused_until timestamptz,
    ADD COLUMN seen_at timestamptz,
    ADD COLUMN presence text NOT NULL DEFAULT 'off_shift';
COMMENT ON COLUMN managers.presence IS 'As it was when it was last looked at; see due_at.';
COMMENT ON COLUMN managers.due_at IS 'When their presence may change.';

CREATE TABLE absences (
    absence_id uuid PRIMARY KEY,
    manager_id uuid NOT NULL REFERENCES managers,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL CHECK (ends_at > starts_at),
    is_sick boolean NOT NULL,
    note text
);
CREATE INDEX ix_absences_manager_id ON absences (manager_id, ends_at);

CREATE TABLE teams (
    team text PRIMARY KEY CHECK (team <> 'all'),
    name text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE TABLE team_members (
    team text NOT NULL REFERENCES teams,
    manager_id uuid NOT NULL REFERENCES managers,
    PRIMARY KEY (team, manager_id)
);

CREATE TABLE loads (
    manager_id uuid PRIMARY KEY,
    open_leads integer NOT NULL CHECK (open_leads >= 0)
) WITH (fillfactor = 50);
COMMENT ON TABLE loads IS 'Leads held, offered or claimed; changed at the desk only.';
INSERT INTO loads SELECT manager_id, (SELECT count(*) FROM leads WHERE leads.manager_id =
    managers.manager_id) FROM managers;
CREATE FUNCTION manager_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO loads VALUES (NEW.manager_id, 0);
    RETURN NULL;
END $$;
CREATE TRIGGER manager_added AFTER INSERT ON managers
    FOR EACH ROW EXECUTE FUNCTION manager_added();

CREATE TABLE turns (
    wheel text NOT NULL,
    manager_id uuid NOT NULL,
    passed bigint NOT NULL,
    turn bigint NOT NULL,
    stride bigint NOT NULL,
    PRIMARY KEY (wheel, manager_id)
) WITH (fillfactor = 50);
INSERT INTO turns SELECT 'all', manager_id, 0, last_turn, 1000000 FROM managers
    WHERE last_turn > 0;
ALTER TABLE managers DROP COLUMN last_turn;
"""

DESK = """
CREATE SEQUENCE desk_versions;
CREATE TABLE desk (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL DEFAULT nextval('desk_versions'),
    previous bigint NOT NULL DEFAULT 0,
    roster bigint NOT NULL DEFAULT nextval('desk_versions')
) WITH (fillfactor = 10);
INSERT INTO desk DEFAULT VALUES;
COMMENT ON TABLE desk IS
    'Its row lock is the right to change loads and turns; its versions tell who remembers what.';
CREATE FUNCTION roster_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE desk SET roster = nextval('desk_versions');
    RETURN NULL;
END $$;
CREATE TRIGGER roster_changed AFTER INSERT OR UPDATE OR DELETE ON managers
    FOR EACH STATEMENT EXECUTE FUNCTION roster_changed();
CREATE TRIGGER roster_changed AFTER INSERT OR UPDATE OR DELETE ON shifts
    FOR EACH STATEMENT EXECUTE FUNCTION roster_changed();
CREATE TRIGGER roster_changed AFTER INSERT OR UPDATE OR DELETE ON absences
    FOR EACH STATEMENT EXECUTE FUNCTION roster_changed();
CREATE TRIGGER roster_changed AFTER INSERT OR UPDATE OR DELETE ON team_members
    FOR EACH STATEMENT EXECUTE FUNCTION roster_changed();
"""

RULES = """
CREATE TABLE rule_sets (
    version integer PRIMARY KEY,
    status text NOT NULL CHECK (status IN ('draft', 'active', 'retired')),
    body jsonb NOT NULL,
    note text,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    activated_at timestamptz,
    activated_by text
);
CREATE UNIQUE INDEX uq_rule_sets_active ON rule_sets (status) WHERE status = 'active';
INSERT INTO rule_sets VALUES (1, 'active', '{}', 'Everybody in turn', 'epoch', 'baza', 'epoch',
    'baza');
CREATE TRIGGER roster_changed AFTER INSERT OR UPDATE OR DELETE ON rule_sets
    FOR EACH STATEMENT EXECUTE FUNCTION roster_changed();

CREATE TABLE client_segments (
    client_id uuid PRIMARY KEY,
    seq integer NOT NULL,
    segment text
);

CREATE TABLE rosters (
    roster bytea PRIMARY KEY,
    body bytea NOT NULL
);
CREATE TABLE sittings (
    sitting_id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    engine integer NOT NULL,
    rule_version integer NOT NULL,
    roster bytea NOT NULL,
    inputs bytea NOT NULL,
    outcomes bytea NOT NULL
) WITH (toast_tuple_target = 8160);
CREATE INDEX ix_sittings_at ON sittings USING brin (at);
COMMENT ON TABLE sittings IS 'Decisions made together: what they were made from and what came out.';
CREATE TABLE left_waiting (
    lead_id uuid NOT NULL,
    at timestamptz NOT NULL,
    sitting_id uuid NOT NULL,
    place integer NOT NULL,
    why text NOT NULL
);
CREATE INDEX ix_left_waiting_lead_id ON left_waiting (lead_id, at);
COMMENT ON TABLE left_waiting IS 'Decisions that found nobody.';
"""

LEADS = """
ALTER TABLE leads
    ADD COLUMN is_returning boolean NOT NULL DEFAULT false,
    ADD COLUMN region text, ADD COLUMN city text,
    ADD COLUMN phone_country text, ADD COLUMN phone_region text, ADD COLUMN domain text,
    ADD COLUMN product text, ADD COLUMN language text, ADD COLUMN utm jsonb,
    ADD COLUMN amount_minor bigint, ADD COLUMN currency text, ADD COLUMN complexity text,
    ADD COLUMN hops integer NOT NULL DEFAULT 0,
    ADD COLUMN queued_at timestamptz,
    ADD COLUMN was_left text,
    ADD COLUMN alert_at timestamptz,
    ADD COLUMN alerted_at timestamptz,
    ADD COLUMN ended_at timestamptz,
    ADD COLUMN ended_because text,
    ADD COLUMN deal_id uuid;
ALTER TABLE leads DROP CONSTRAINT leads_state_check;
ALTER TABLE leads DROP CONSTRAINT leads_check;
ALTER TABLE leads DROP CONSTRAINT leads_check1;
UPDATE leads SET queued_at = received_at, was_left = state, due_at = now()
    WHERE state = 'queued';
ALTER TABLE leads
    ADD CONSTRAINT leads_state_check CHECK (state IN
        ('waiting', 'offered', 'claimed', 'queued', 'muted', 'converted', 'closed')),
    ADD CONSTRAINT leads_manager_check CHECK (CASE
        WHEN state IN ('offered', 'claimed', 'converted') THEN manager_id IS NOT NULL
        WHEN state = 'closed' THEN true ELSE manager_id IS NULL END),
    ADD CONSTRAINT leads_due_check CHECK (CASE
        WHEN state IN ('offered', 'waiting', 'muted') THEN due_at IS NOT NULL
        WHEN state = 'queued' THEN true ELSE due_at IS NULL END);
DROP INDEX ix_leads_waiting;
DROP INDEX ix_leads_manager_id;
CREATE INDEX ix_leads_waiting ON leads (due_at, received_at, lead_id) WHERE state = 'waiting';
CREATE INDEX ix_leads_manager_id ON leads (manager_id, lead_id)
    WHERE state IN ('offered', 'claimed');
CREATE INDEX ix_leads_again ON leads (due_at)
    WHERE state IN ('queued', 'muted') AND due_at IS NOT NULL;
CREATE INDEX ix_leads_alert_at ON leads (alert_at) WHERE alert_at IS NOT NULL;
CREATE INDEX ix_leads_client_id ON leads (client_id) WHERE state IN ('queued', 'muted');
CREATE INDEX ix_leads_ended_at ON leads (ended_at) WHERE ended_at IS NOT NULL;
COMMENT ON COLUMN leads.hops IS 'Offers since it came in or was last taken out of the queue.';
COMMENT ON COLUMN leads.due_at IS
    'offered: end of the window; waiting: when to offer it; queued, muted: when to try again.';
COMMENT ON COLUMN leads.was_left IS
    'queued or muted: what the last decision left it as, since nobody got it; offers clear it.';
COMMENT ON COLUMN leads.alert_at IS 'When somebody is told that nobody has taken it.';

ALTER TABLE offers
    ADD COLUMN rule text, ADD COLUMN team text, ADD COLUMN strategy text,
    ADD COLUMN sitting_id uuid, ADD COLUMN place integer, ADD COLUMN ended_because text;
ALTER TABLE offers DROP CONSTRAINT offers_lead_id_fkey;
COMMENT ON TABLE offers IS
    'Made for leads whose rows are locked by the same transaction; leads are never deleted.';
ALTER TABLE offers DROP CONSTRAINT offers_ended_how_check;
ALTER TABLE offers ADD CONSTRAINT offers_ended_how_check CHECK (ended_how IN ('claimed', 'lapsed',
    'released', 'declined', 'superseded', 'withdrawn', 'closed'));
CREATE INDEX ix_offers_manager_id ON offers (manager_id, offered_at);
CREATE INDEX ix_offers_offered_at ON offers USING brin (offered_at);
"""

AFTER = "UPDATE managers SET due_at = now() WHERE is_active"


def upgrade() -> None:
    for sql in (MANAGERS, DESK, RULES, LEADS, AFTER):
        run_sql(op.get_bind(), sql)
