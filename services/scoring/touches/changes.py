"""Clients whose next touch has to be planned anew: bought, spoken with, moved, given to another.

Whoever changes what a plan follows from notes the client here, in the same transaction. Planning
takes them off a little later, many at once (`planning.py`).
"""

from collections.abc import Iterable
from uuid import UUID

from libs.shared.bulk import append
from libs.shared.database import Connection


async def note_changed_clients(tx: Connection, clients: Iterable[UUID]) -> None:
    """Have the touches of these clients planned anew; noting somebody twice does no harm."""
    await append(tx, "touch_changes", ("client_id",), [(client,) for client in clients])
