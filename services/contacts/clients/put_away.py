"""Putting many cards away at once, as hygiene and imports need it."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.shared import audit, outbox
from libs.shared.http import Request, Text2000
from services.contacts.clients.models import Client, ClientIsArchived, ClientNotFound


class ArchiveClients(Request):
    """Cards to be put away, and why."""

    ids: Annotated[list[UUID], Field(min_length=1, max_length=1000)]
    reason: Text2000


async def archive_many(
    session: AsyncSession, given: ArchiveClients, *, by: str, now: datetime
) -> tuple[int, dict[UUID, str]]:
    """Put cards away in one transaction; what is put away already stays as it is.

    Returns:
        How many were put away now, and for the others the problem's code by id.
    """
    wanted = list(dict.fromkeys(given.ids))
    # Locked in the order of ids: two batches with the same cards would otherwise deadlock.
    query = select(Client).where(Client.id.in_(wanted)).order_by(Client.id).with_for_update()
    found = {client.id: client for client in await session.scalars(query)}
    events = []
    refused: dict[UUID, str] = {}
    for client_id in wanted:
        client = found.get(client_id)
        if client is None:
            refused[client_id] = ClientNotFound.code
        elif client.archived_at is not None:
            refused[client_id] = ClientIsArchived.code
        else:
            events.append(client.archive(reason=given.reason, at=now))
    await outbox.add(session, *events)
    await audit.record(
        session,
        action="clients.archived",
        subject_type="clients",
        subject_id="batch",
        details={"archived": len(events), "refused": len(refused)},
        at=now,
        actor=by,
    )
    return len(events), refused
