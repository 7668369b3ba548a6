-- Where a service's workers are in the topics that they hear, and which of them hears what.

CREATE TABLE consumer_positions (
    group_name text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    worker_id uuid,
    session_pid integer,
    session_began timestamptz,
    leased_until timestamptz,
    PRIMARY KEY (group_name, topic, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE consumer_positions IS 'What of each partition has been applied, written in the transaction of the effects; and whose it is.';
COMMENT ON COLUMN consumer_positions.next_offset IS 'The first offset whose effects are not in this database.';
COMMENT ON COLUMN consumer_positions.session_pid IS 'Backend of the holder''s own connection: when it has ended, so has the lease.';

CREATE TABLE consumer_workers (
    worker_id uuid PRIMARY KEY,
    group_name text NOT NULL,
    session_pid integer NOT NULL,
    session_began timestamptz NOT NULL,
    seen_until timestamptz NOT NULL
);
COMMENT ON TABLE consumer_workers IS 'Who shares the partitions, those without any included.';
