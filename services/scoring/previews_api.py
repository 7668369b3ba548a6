"""HTTP in: what a draft of the rules would do, asked before it is put in force."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel
from starlette.responses import Response

from libs.shared.http import Db, Now, Session, problems, router
from libs.shared.ids import new_id
from services.scoring.activation import BaseIsEmpty, PreviewNotFound, stored_cuts
from services.scoring.models import RulePreview
from services.scoring.preview import Moves, preview
from services.scoring.rules import CurrencyWithoutRate, RuleSet
from services.scoring.rules_api import Analyst, CurrentRules, Reader, version_of
from services.scoring.rules_in_force import RuleSetNotFound, find

routes = router(prefix="/v1", tags=["scoring"])


class MovesView(BaseModel):
    """Clients who would go from one segment to another (or stay, where both are the same).

    Attributes:
        monetary_minor: Kept in the draft's period, minor units of its reporting currency.
        examples: The most valuable of those who would move.
    """

    old_segment: str | None
    new_segment: str | None
    clients: int
    monetary_minor: int
    examples: list[UUID]

    @classmethod
    def of(cls, moves: Moves) -> "MovesView":
        return cls(
            old_segment=moves.old_segment,
            new_segment=moves.new_segment,
            clients=moves.clients,
            monetary_minor=moves.monetary_minor,
            examples=[UUID(bytes=example.bytes) for example in moves.examples],
        )


class PreviewView(BaseModel):
    """What activating a draft would have done at `made_at`.

    Attributes:
        cuts: What activation `as_previewed` will cut at.
        moving: Clients who would get another segment.
        matrix: Every pair of old and new segment that has clients, the largest first.
    """

    preview_id: UUID
    version: int
    made_at: datetime
    made_by: str
    currency: str
    cuts: dict[str, list[float]]
    clients: int
    moving: int
    matrix: list[MovesView]


@routes.post(
    "/rule-sets/{version}/previews",
    response_model=PreviewView,
    status_code=201,
    responses=problems(RuleSetNotFound, BaseIsEmpty, CurrencyWithoutRate),
    summary="Who would move from where to where, were this version in force now",
)
async def preview_rule_set(
    version: int,
    session: Session,
    database: Db,
    user: Analyst,
    _rules: CurrentRules,
    now: Now,
    response: Response,
) -> PreviewView:
    rule_set = RuleSet.model_validate((await version_of(session, version)).body)
    async with (
        database.pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        found = await preview(connection, rule_set, now=now)
    made = RulePreview(
        preview_id=new_id(),
        version=version,
        cuts=stored_cuts(found.cuts),
        moves=[MovesView.of(moves).model_dump(mode="json") for moves in found.moves],
        made_at=now,
        made_by=user.subject,
    )
    session.add(made)
    await session.flush()
    response.headers["Location"] = f"/v1/previews/{made.preview_id}"
    return _preview_view(made, rule_set.reporting_currency)


@routes.get(
    "/previews/{preview_id}",
    response_model=PreviewView,
    responses=problems(PreviewNotFound),
    summary="A preview that was made before",
)
async def show_preview(preview_id: UUID, session: Session, _user: Reader) -> PreviewView:
    made = await session.get(RulePreview, preview_id)
    if made is None:
        raise PreviewNotFound(preview_id=str(preview_id))
    rule_set = RuleSet.model_validate((await find(session, made.version)).body)
    return _preview_view(made, rule_set.reporting_currency)


def _preview_view(made: RulePreview, currency: str) -> PreviewView:
    matrix = [MovesView.model_validate(moves) for moves in made.moves]
    return PreviewView(
        preview_id=made.preview_id,
        version=made.version,
        made_at=made.made_at,
        made_by=made.made_by,
        currency=currency,
        cuts=made.cuts,
        clients=sum(moves.clients for moves in matrix),
        moving=sum(m.clients for m in matrix if m.old_segment != m.new_segment),
        matrix=matrix,
    )
