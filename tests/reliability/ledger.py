"""A subscriber that can hide nothing: it writes down every application of every event.

It is a Baza worker like any other (`libs.shared.runtime`): same group, inbox, offsets. Its table
has no unique key, so an event that acts twice stands there twice, one that is skipped is missing,
and the rows of a key stand in the order in which they acted. A part of its commits is refused by
the database, as serialization failures are.
"""

import sys
from collections.abc import Sequence

from libs.shared.contracts import said_by
from libs.shared.database import Connection
from libs.shared.events import Event
from libs.shared.runtime import Worker, run_worker
from libs.shared.settings import ServiceSettings
from libs.shared.subscriptions import Subscription, on


def refusing(share: float) -> str:
    """SQL by which this share of the ledger's commits is refused."""
    return f"""
CREATE OR REPLACE FUNCTION refuse_some() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < {share} THEN
        RAISE EXCEPTION 'this commit is refused' USING ERRCODE = '40001';
    END IF;
    RETURN NULL;
END $$;
"""


TABLES = f"""
{refusing(0.02)}
CREATE TABLE applied (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL,
    topic text NOT NULL,
    key text NOT NULL,
    said_by text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE commits (transaction xid8 PRIMARY KEY);
CREATE CONSTRAINT TRIGGER refuse_some AFTER INSERT ON commits
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_some();
"""
_APPLY = """
    INSERT INTO applied (event_id, topic, key, said_by)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[])
"""


_ONCE = "INSERT INTO commits VALUES (pg_current_xact_id()) ON CONFLICT DO NOTHING"


async def write_down(events: Sequence[Event], tx: Connection) -> None:
    """Append a row for each event; the commit is refused now and then."""
    await tx.execute(
        _APPLY,
        [event.event_id for event in events],
        [event.topic for event in events],
        [event.key for event in events],
        [said_by(type(event)) for event in events],
    )
    await tx.execute(_ONCE)


SUBSCRIPTIONS: Sequence[Subscription[Event]] = tuple(
    on(kind, write_down) for kind in Event.registry.values() if kind.topic != "rules"
)

if __name__ == "__main__":
    group = sys.argv[1] if len(sys.argv) > 1 else "ledger"
    run_worker(Worker(group, ServiceSettings(), SUBSCRIPTIONS))
