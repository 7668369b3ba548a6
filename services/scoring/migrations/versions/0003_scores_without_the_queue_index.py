"""No index of the queue: it cost each purchase as much as everything else about `scores`.

It held the money, which changes with every purchase, and no query could take its order from it:
the queue asks first whose touch is overdue, which depends on the day.
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("DROP INDEX ix_scores_queue")
