"""Rules are not made of data that lack more than policy allows."""

from datetime import UTC, datetime

from libs.shared.ids import new_id
from tests.apps import App, problem
from tests.scoring.conftest import Scoring, closed
from tests.scoring.test_api import rules


async def test_free_purchases_and_waiting_events_stop_an_activation(
    api: App, scoring: Scoring
) -> None:
    now = datetime.now(UTC)
    await scoring.hears(*(closed(new_id(), money=money, at=now) for money in (0, 0, 5)))
    await scoring.hears(closed(new_id(), currency="CHF", at=now))  # laid aside: no rate
    await api.call("POST", "/v1/rule-sets", rules(), role="analyst")

    told = (await api.call("GET", "/v1/data-completeness", role="analyst")).json()
    refused = await api.call("POST", "/v1/rule-sets/2/activate", role="analyst")
    path = "/v1/rule-sets/2/activate?despite_gaps=true"
    done = await api.call("POST", path, role="analyst")

    found = {measure["name"]: measure for measure in told}
    assert found["waiting_events"]["found"] == 1
    assert not found["waiting_events"]["is_gap"]  # a hundred may wait
    assert 66 < found["free_purchases_percent"]["found"] < 67
    assert found["buyers_without_card_percent"]["found"] == 100
    assert problem(refused) == (409, "data-incomplete")
    assert [gap["name"] for gap in refused.json()["gaps"]] == ["free_purchases_percent"]
    assert done.json()["status"] == "active"


async def test_an_empty_base_lacks_nothing(api: App) -> None:
    told = (await api.call("GET", "/v1/data-completeness", role="analyst")).json()
    assert not any(measure["is_gap"] for measure in told)
