"""A model is fitted when asked for, out of the worker's way, and tells what clients are worth."""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

from libs.shared.events import DealClosed
from libs.shared.ids import new_id
from services.scoring.value_models import AGAIN, LEASE, fit_if_due
from tests.apps import App, problem
from tests.scoring.conftest import Scoring, closed

NOW = datetime.now(UTC).replace(microsecond=0)


def base() -> tuple[UUID, UUID, list[DealClosed]]:
    """Two hundred clients; one buys every ten days, one has been silent for most of a year."""
    chance = random.Random(3)
    loyal, silent = new_id(), new_id()
    deals = [closed(loyal, ago=10 * n + 2, money=30_000, at=NOW) for n in range(30)]
    deals += [closed(silent, ago=300 + 10 * n, money=30_000, at=NOW) for n in range(6)]
    for _ in range(200):
        client, ago = new_id(), chance.randrange(60, 360)
        while ago > 0:
            deals.append(closed(client, ago=ago, money=chance.randrange(5_000, 90_000), at=NOW))
            ago -= chance.randrange(5, 120)
            if chance.random() < 0.3:
                break
    return loyal, silent, deals


async def test_a_model_is_fitted_on_demand_and_values_clients(api: App, scoring: Scoring) -> None:
    loyal, silent, deals = base()
    await scoring.hears(*deals)
    before = await api.call("GET", f"/v1/clients/{loyal}/value", role="manager")
    assert problem(before) == (409, "no-value-model")
    assert not await fit_if_due(scoring.database, NOW)  # nobody has asked yet

    asked = await api.call("POST", "/v1/value-models", {}, role="analyst")
    now = datetime.fromisoformat(asked.json()["due_at"])
    assert await fit_if_due(scoring.database, now)
    assert not await fit_if_due(scoring.database, now + timedelta(days=29))

    models = (await api.call("GET", "/v1/value-models", role="analyst")).json()
    assert (models["problem"], len(models["models"])) == (None, 1)
    assert models["models"][0]["clients"] == 202
    assert datetime.fromisoformat(models["due_at"]) == now + timedelta(days=30)
    seen, gone = [
        (await api.call("GET", f"/v1/clients/{client}/value", role="manager")).json()
        for client in (loyal, silent)
    ]
    assert seen["probability_alive"] > 0.9 > 0.2 > gone["probability_alive"]
    assert seen["value_range_minor"][0] < seen["value_minor"] < seen["value_range_minor"][1]
    assert seen["value_minor"] > gone["value_minor"]
    first, last = (datetime.fromisoformat(day) for day in seen["next_purchase_range"])
    assert first < datetime.fromisoformat(seen["next_purchase_on"]) < last
    nobody = await api.call("GET", f"/v1/clients/{new_id()}/value", role="manager")
    assert problem(nobody) == (404, "client-not-scored")


async def test_a_base_nobody_came_back_to_has_no_model_and_is_tried_again(
    scoring: Scoring,
) -> None:
    await scoring.hears(*(closed(new_id(), at=NOW) for _ in range(5)))
    await scoring.database.pool.execute("UPDATE value_fitting SET due_at = $1", NOW)

    assert await fit_if_due(scoring.database, NOW)

    row = await scoring.database.pool.fetchrow("SELECT * FROM value_fitting")
    assert row is not None
    assert (row["due_at"], row["problem"]) == (NOW + AGAIN, "nobody has bought on a second day")


async def test_a_fit_whose_worker_died_is_due_again(scoring: Scoring) -> None:
    await scoring.database.pool.execute("UPDATE value_fitting SET due_at = $1", NOW)
    claim = "UPDATE value_fitting SET due_at = $1 + $2::interval WHERE due_at <= $1"
    await scoring.database.pool.execute(claim, NOW, LEASE)  # and then the worker is gone

    assert not await fit_if_due(scoring.database, NOW + LEASE - timedelta(seconds=1))
    assert await fit_if_due(scoring.database, NOW + LEASE)
