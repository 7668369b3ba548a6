"""Ends the offers that a race of the versions before has left open.

A lead that was offered again while its window was swept could keep an open offer that nobody knew
of. The next offer then failed, and with it the offering of every other lead.
"""

from alembic import op

from libs.shared.migrations import run_sql

revision = "0007"
down_revision = "0006"

SQL = """
UPDATE offers SET ended_at = now(), ended_how = 'superseded'
FROM leads WHERE leads.lead_id = offers.lead_id AND offers.ended_at IS NULL
    AND (leads.state NOT IN ('offered', 'claimed') OR leads.epoch <> offers.epoch);
"""


def upgrade() -> None:
    run_sql(op.get_bind(), SQL)
