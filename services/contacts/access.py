"""Who may see and change which client.

Managers have their own clients and those that nobody has; supervisors and integrations have all.
Analysts and marketers read everything. Support reads the history of interactions, no more.
"""

from typing import Annotated
from uuid import UUID

from fastapi import Depends

from libs.shared.auth import Principal, Role, require
from libs.shared.errors import Forbidden

_ALL = (Role.SUPERVISOR, Role.INTEGRATION)
_READ_ALL = (*_ALL, Role.ANALYST, Role.MARKETER)

Reader = Annotated[Principal, Depends(require(Role.MANAGER, *_READ_ALL))]
HistoryReader = Annotated[Principal, Depends(require(Role.MANAGER, Role.SUPPORT, *_READ_ALL))]
Writer = Annotated[Principal, Depends(require(Role.MANAGER, *_ALL))]
BatchWriter = Annotated[Principal, Depends(require(*_ALL))]
Supervisor = Annotated[Principal, Depends(require(Role.SUPERVISOR))]


class ClientNotYours(Forbidden):
    """This client has another manager."""

    code = "client-not-yours"
    ru = "У этого клиента другой менеджер."


def sees_all(caller: Principal) -> bool:
    """Whether the caller may read every card."""
    return caller.has(*_READ_ALL)


def demand_readable(caller: Principal, owner_id: UUID | None) -> None:
    """Check that the caller may see a client of this owner.

    Raises:
        ClientNotYours: It is another manager's.
    """
    if not caller.has(*_READ_ALL, Role.SUPPORT):
        _demand_own(caller, owner_id)


def demand_changeable(caller: Principal, owner_id: UUID | None) -> None:
    """Check that the caller may change a client of this owner.

    Raises:
        ClientNotYours: It is another manager's.
    """
    if not caller.has(*_ALL):
        _demand_own(caller, owner_id)


def owner_of_new(caller: Principal, wanted: UUID | None) -> UUID | None:
    """Who owns what the caller creates: a manager's new clients are their own.

    Raises:
        ClientNotYours: A manager wants it to be somebody else's.
    """
    if caller.has(*_ALL):
        return wanted
    if wanted is not None and wanted != caller.manager_id:
        raise ClientNotYours
    return caller.manager_id


def _demand_own(caller: Principal, owner_id: UUID | None) -> None:
    if owner_id is not None and owner_id != caller.manager_id:
        raise ClientNotYours
