"""Identifiers: UUIDv7, so that rows and events created later sort later and indexes stay dense."""

from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """Make a UUIDv7. Its time part is real time, also in sandbox mode, and is never read back."""
    made: UUID = uuid7()
    return made
