"""HTTP in: full rescorings."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel
from starlette.responses import Response

from libs.shared.errors import NotFound
from libs.shared.http import Now, Request, Session, problems, router
from libs.shared.ids import new_id
from services.scoring.models import Rescoring
from services.scoring.rules_api import Analyst, Reader

routes = router(prefix="/v1", tags=["scoring"])


class RescoringNotFound(NotFound):
    """There is no rescoring with this id."""

    code = "rescoring-not-found"
    ru = "Такого пересчёта нет."


class RescoringView(BaseModel):
    """A full rescoring; `mismatches` counts clients whose stored score was wrong and is mended."""

    rescoring_id: UUID
    state: str
    checked: int
    mismatches: int
    history_mismatches: int
    requested_at: datetime
    requested_by: str
    finished_at: datetime | None


class StartRescoring(Request):
    """Score everybody again from the bare purchases."""


@routes.post(
    "/rescorings",
    response_model=RescoringView,
    status_code=202,
    summary="Score everybody again from the bare purchases and count what differs",
)
async def start_rescoring(
    _wish: StartRescoring, session: Session, user: Analyst, now: Now, response: Response
) -> RescoringView:
    job = Rescoring(
        rescoring_id=new_id(),
        state="running",
        requested_at=now,
        requested_by=user.subject,
        due_at=now,
        checked=0,
        mismatches=0,
        history_mismatches=0,
    )
    session.add(job)
    await session.flush()
    response.headers["Location"] = f"/v1/rescorings/{job.rescoring_id}"
    return RescoringView.model_validate(job, from_attributes=True)


@routes.get(
    "/rescorings/{rescoring_id}",
    response_model=RescoringView,
    responses=problems(RescoringNotFound),
    summary="How far a rescoring is",
)
async def show_rescoring(rescoring_id: UUID, session: Session, _user: Reader) -> RescoringView:
    job = await session.get(Rescoring, rescoring_id)
    if job is None:
        raise RescoringNotFound(rescoring_id=str(rescoring_id))
    return RescoringView.model_validate(job, from_attributes=True)
