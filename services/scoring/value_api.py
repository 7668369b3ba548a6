"""HTTP in: what a client is worth, and the models that say so."""

from datetime import date, datetime, timedelta
from uuid import UUID

from pydantic import BaseModel

from libs.shared.errors import Conflict
from libs.shared.http import Db, Now, Request, Session, problems, router
from libs.shared.policies import current
from services.scoring.api import ClientNotScored
from services.scoring.buy_till_you_die import BgNbd, GammaGamma, History, outlook
from services.scoring.rules_api import Analyst, CurrentRules, Reader
from services.scoring.value_models import ValueModelPolicy, history_of, newest_model

routes = router(prefix="/v1", tags=["value"])


class NoValueModel(Conflict):
    """No model has been fitted yet; POST /v1/value-models asks for one."""

    code = "no-value-model"
    ru = "Модель ценности ещё не построена; её можно запросить."


class ValueView(BaseModel):
    """What is expected of a client. Ranges hold eighty of a hundred such clients.

    Attributes:
        next_purchase_on: Half of such clients, if they still buy, will have bought by then.
        purchases: Days with a purchase within the horizon.
        spend_minor: At a purchase; `value_minor`: of all purchases within the horizon.
    """

    client_id: UUID
    model_version: int
    probability_alive: float
    next_purchase_on: date
    next_purchase_range: tuple[date, date]
    horizon_days: int
    purchases: float
    purchases_range: tuple[float, float]
    spend_minor: int
    value_minor: int
    value_range_minor: tuple[int, int]
    currency: str


class ValueModelView(BaseModel):
    """A fitted model: BG/NBD (r, alpha, a, b; weeks) and Gamma-Gamma (p, q, gamma)."""

    version: int
    fitted_at: datetime
    clients: int
    currency: str
    model: dict[str, float]
    log_likelihood: float


class ValueModelsView(BaseModel):
    """The models, newest first, and when the next will be fitted."""

    due_at: datetime | None
    problem: str | None
    models: list[ValueModelView]


class FitValueModel(Request):
    """Fit a model now, and every so often from then on (policy `value-model`)."""


@routes.get(
    "/clients/{client_id}/value",
    response_model=ValueView,
    responses=problems(ClientNotScored, NoValueModel),
    summary="Next purchase, whether a client still buys, and their value, with the uncertainty",
)
async def show_value(
    client_id: UUID, session: Session, database: Db, _user: Reader, rules: CurrentRules, now: Now
) -> ValueView:
    policy = (await current(session, ValueModelPolicy)).body
    async with database.pool.acquire() as connection:
        model = await newest_model(connection)
        if model is None:
            raise NoValueModel
        row = await history_of(connection, client_id, rules, now)
    if row is None:
        raise ClientNotScored(client_id=str(client_id))
    fitted = model["model"]
    seen = outlook(
        BgNbd(fitted["r"], fitted["alpha"], fitted["a"], fitted["b"]),
        GammaGamma(fitted["p"], fitted["q"], fitted["gamma"]),
        History(int(row[0]), row[1], row[2], max(row[3], 0.0)),
        policy.horizon_days / 7,
    )
    today = rules.day_of(now)
    return ValueView(
        client_id=client_id,
        model_version=model["version"],
        probability_alive=seen.probability_alive,
        next_purchase_on=_in_weeks(today, seen.next_weeks),
        next_purchase_range=(
            _in_weeks(today, seen.next_weeks_range[0]),
            _in_weeks(today, seen.next_weeks_range[1]),
        ),
        horizon_days=policy.horizon_days,
        purchases=seen.purchases,
        purchases_range=seen.purchases_range,
        spend_minor=round(seen.spend * 100),
        value_minor=round(seen.value * 100),
        value_range_minor=(round(seen.value_range[0] * 100), round(seen.value_range[1] * 100)),
        currency=model["currency"],
    )


def _in_weeks(today: date, weeks: float) -> date:
    return today + timedelta(days=min(round(weeks * 7), 36_500))


@routes.get("/value-models", response_model=ValueModelsView, summary="The models, newest first")
async def list_value_models(database: Db, _user: Reader) -> ValueModelsView:
    async with database.pool.acquire() as connection:
        fitting = await connection.fetchrow("SELECT * FROM value_fitting")
        rows = await connection.fetch("SELECT * FROM value_models ORDER BY version DESC LIMIT 100")
    return ValueModelsView(
        due_at=fitting["due_at"] if fitting else None,
        problem=fitting["problem"] if fitting else None,
        models=[ValueModelView(**dict(row)) for row in rows],
    )


@routes.post(
    "/value-models",
    response_model=ValueModelsView,
    status_code=202,
    summary="Have a model fitted to the base as it is",
)
async def fit_value_model(
    _wish: FitValueModel, database: Db, user: Analyst, now: Now
) -> ValueModelsView:
    async with database.transaction() as tx:
        await tx.execute("UPDATE value_fitting SET due_at = $1", now)
    return await list_value_models(database, user)
