"""Whose queue a caller may look at and work: managers have their own, others any."""

from uuid import UUID

from libs.shared.auth import Principal, Role
from libs.shared.errors import Forbidden

SEE_ALL = (Role.SUPERVISOR, Role.ANALYST, Role.MARKETER, Role.INTEGRATION)


class QueueNotYours(Forbidden):
    """This is another manager's queue."""

    code = "queue-not-yours"
    ru = "Это очередь другого менеджера."


class ManagerUnnamed(Forbidden):
    """Say whose queue it is: the token names no manager."""

    code = "manager-unnamed"
    ru = "Укажите, чья это очередь: в токене нет менеджера."


def whose_queue(caller: Principal, wanted: UUID | None) -> UUID | None:
    """Whose queue may be looked at: managers have their own, others any or everybody's.

    Raises:
        QueueNotYours: A manager asks for another's.
    """
    if caller.has(*SEE_ALL):
        return wanted
    return which_manager(caller, wanted)


def which_manager(caller: Principal, wanted: UUID | None) -> UUID:
    """The manager that is meant.

    Raises:
        QueueNotYours: A manager asks for another.
        ManagerUnnamed: Neither the request nor the token says.
    """
    if not caller.has(*SEE_ALL) and wanted not in (None, caller.manager_id):
        raise QueueNotYours
    manager = wanted or caller.manager_id
    if manager is None:
        raise ManagerUnnamed
    return manager
