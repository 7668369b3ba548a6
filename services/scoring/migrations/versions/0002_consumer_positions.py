"""Positions in topics are kept here, beside the effects, and leased to workers."""

from alembic import op

from libs.shared.migrations import create_plumbing

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    create_plumbing(op.get_bind(), version=2)
