"""What travels along with a piece of work: whose request it is and which event caused it.

The doors bind these once; the outbox, logs and traces read them. They are context variables, so
tasks started from a request inherit them and two requests never see each other's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple
from uuid import UUID


class Context(NamedTuple):
    """The thread that ties an effect to its cause, through every service.

    Attributes:
        correlation_id: Same for everything that one outside action set off.
        causation_id: The event being handled; None for work that came by HTTP or a timer.
        traceparent: W3C trace context of the span in force.
        actor: Subject of the caller's token, or the service's name.
    """

    correlation_id: str | None = None
    causation_id: UUID | None = None
    traceparent: str | None = None
    actor: str | None = None


_current: ContextVar[Context] = ContextVar("baza_context")
_NOTHING = Context()


def current() -> Context:
    """The context of the running task; empty where no door has bound one."""
    return _current.get(_NOTHING)


@contextmanager
def bound(**changes: object) -> Iterator[Context]:
    """Run a block with some members of the context replaced."""
    context = current()._replace(**changes)  # type: ignore[arg-type]  # names are checked by it
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
