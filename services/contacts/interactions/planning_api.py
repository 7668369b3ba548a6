"""HTTP in: meetings and calls to come: planned, moved, cancelled, held."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from libs.shared import outbox
from libs.shared.http import (
    IfMatch,
    Instant,
    Now,
    Request,
    Session,
    Text2000,
    Text20000,
    problems,
    router,
)
from libs.shared.ids import new_id
from services.contacts.access import ClientNotYours, Writer
from services.contacts.clients import search
from services.contacts.clients.models import ClientIsArchived, ClientNotFound
from services.contacts.interactions.finding import (
    InteractionView,
    find_to_change,
    told,
)
from services.contacts.interactions.models import (
    HappenedInFuture,
    Interaction,
    InteractionNotFound,
    InteractionNotPlanned,
    StartsInPast,
    demand_future,
)
from services.contacts.interactions.recording import MakePromise, Minutes, Texts, promises_of

routes = router(prefix="/v1", tags=["interactions"])

_OF_CLIENT = (ClientNotFound, ClientNotYours)
_FOUND = (InteractionNotFound, ClientNotYours)


class PlanInteraction(Request):
    """A meeting or call to come."""

    kind: Literal["meeting", "call"]
    starts_at: Instant
    duration_minutes: Minutes | None = None
    topic: Annotated[str, Field(max_length=2000)] = ""
    manager_id: UUID | None = None


class MoveInteraction(Request):
    """Another time, and why."""

    starts_at: Instant
    reason: Text2000


class CancelInteraction(Request):
    """Why it will not happen."""

    reason: Text2000


class HoldInteraction(Request):
    """What came of it; it took place now unless another time is said."""

    outcome: Text20000
    held_at: Instant | None = None
    objections: Texts = Field(default_factory=list)
    agreements: Texts = Field(default_factory=list)
    promises: Annotated[list[MakePromise], Field(max_length=50)] = Field(default_factory=list)


@routes.post(
    "/clients/{client_id}/interactions/plan",
    status_code=201,
    responses=problems(*_OF_CLIENT, ClientIsArchived, StartsInPast),
    summary="Plan a meeting or call",
)
async def plan_interaction(
    client_id: UUID,
    given: PlanInteraction,
    session: Session,
    caller: Writer,
    now: Now,
    response: Response,
) -> InteractionView:
    client = await search.find_to_write_for(session, client_id, caller)
    demand_future(given.starts_at, now=now)
    made = Interaction(
        id=new_id(),
        client_id=client_id,
        version=1,
        kind=given.kind,
        state="planned",
        direction="none",
        at=given.starts_at,
        duration_minutes=given.duration_minutes,
        topic=given.topic,
        objections=[],
        agreements=[],
        manager_id=given.manager_id or caller.manager_id or client.owner_id,
        moves=0,
        recorded_by=caller.subject,
        created_at=now,
    )
    session.add(made)
    await outbox.add(session, made.planned())
    return told(made, (), response, new=True)


@routes.post(
    "/interactions/{interaction_id}/move",
    responses=problems(*_FOUND, InteractionNotPlanned, StartsInPast, ClientIsArchived),
    summary="Give a planned one another time",
)
async def move_interaction(
    interaction_id: UUID,
    given: MoveInteraction,
    expected: IfMatch,
    session: Session,
    caller: Writer,
    now: Now,
    response: Response,
) -> InteractionView:
    found = await find_to_change(session, interaction_id, caller, expected)
    await outbox.add(session, found.move(given.starts_at, reason=given.reason, at=now))
    return told(found, (), response)


@routes.post(
    "/interactions/{interaction_id}/cancel",
    responses=problems(*_FOUND, InteractionNotPlanned, ClientIsArchived),
    summary="Call a planned one off; the reason is mandatory",
)
async def cancel_interaction(
    interaction_id: UUID,
    given: CancelInteraction,
    expected: IfMatch,
    session: Session,
    caller: Writer,
    now: Now,
    response: Response,
) -> InteractionView:
    found = await find_to_change(session, interaction_id, caller, expected)
    await outbox.add(session, found.cancel(reason=given.reason, at=now))
    return told(found, (), response)


@routes.post(
    "/interactions/{interaction_id}/held",
    responses=problems(*_FOUND, InteractionNotPlanned, HappenedInFuture, ClientIsArchived),
    summary="Note that a planned one took place, and what came of it",
)
async def hold_interaction(
    interaction_id: UUID,
    given: HoldInteraction,
    expected: IfMatch,
    session: Session,
    caller: Writer,
    now: Now,
    response: Response,
) -> InteractionView:
    found = await find_to_change(session, interaction_id, caller, expected)
    event = found.hold(outcome=given.outcome, held_at=given.held_at or now, at=now)
    found.objections, found.agreements = given.objections, given.agreements
    promises = promises_of(given.promises, found)
    session.add_all(promises)
    await outbox.add(session, event)
    return told(found, promises, response)
