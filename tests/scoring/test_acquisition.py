"""What a client costs and brings by channel, and when that is an alarm."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from libs.shared.events import InteractionRecorded, LeadReceived
from libs.shared.ids import new_id
from services.scoring.acquisition.unit_economics import UnitEconomicsPolicy, judged
from tests.apps import App, problem
from tests.scoring.conftest import Scoring, closed

NOW = datetime.now(UTC)
DAY = {ago: (NOW - timedelta(days=ago)).date().isoformat() for ago in range(-1, 101)}


def lead(client: UUID, channel: str, *, ago: int = 60) -> LeadReceived:
    return LeadReceived(
        lead_id=new_id(),
        client_id=client,
        source="site",
        channel=channel,
        is_returning=False,
        occurred_at=NOW - timedelta(days=ago),
    )


def cost(channel: str, amount: int, *, first: int = 40, last: int = 1) -> Mapping[str, Any]:
    return {
        "channel": channel,
        "group": "ad_budgets",
        "first_day": DAY[first],
        "last_day": DAY[last],
        "amount_minor": amount,
    }


@pytest.mark.parametrize(
    ("cost", "won", "brought", "verdict"),
    [
        (100, 1, 300.0, "healthy"),
        (100, 1, 299.0, "low"),
        (100, 1, 100.0, "alarm"),
        (100, 0, 0.0, "alarm"),
        (0, 1, 100.0, "unknown"),
    ],
)
def test_a_channel_that_costs_what_it_brings_is_an_alarm(
    cost: int, won: int, brought: float, verdict: str
) -> None:
    channel = judged(
        "social",
        {"software": cost},
        clients=won,
        won=won,
        came_back=0,
        brought_minor=brought,
        policy=UnitEconomicsPolicy(),
    )
    assert channel.verdict == verdict


async def test_costs_and_clients_meet_by_channel(api: App, scoring: Scoring) -> None:
    social, late, cold, stranger = (new_id() for _ in range(4))
    # Heard in disorder: the first lead decides, not the one heard first.
    await scoring.hears(
        lead(social, "phone", ago=5),
        lead(social, "social"),
        lead(late, "social"),
        lead(cold, "cold"),
    )
    await scoring.hears(
        closed(social, ago=30, money=500_000, at=NOW),
        closed(social, ago=20, money=100_000, at=NOW),
        closed(late, ago=90, money=200_000, at=NOW),  # won before the period
        closed(cold, ago=10, money=300_000, at=NOW),
        closed(stranger, ago=10, money=1, at=NOW),
    )
    for one in (
        cost("social", 150_000),
        cost("cold", 350_000),
        cost("cold", 1, first=100, last=90),
    ):
        assert (await api.call("POST", "/v1/acquisition-costs", one)).status_code == 201

    path = f"/v1/unit-economics?begin={DAY[40]}&end={DAY[1]}"
    table = (await api.call("GET", path, role="analyst")).json()

    found = {c["channel"]: c for c in table["channels"]}
    assert [c["channel"] for c in table["channels"]] == ["cold", "social", "unknown"]
    assert (found["social"]["won"], found["social"]["clients"]) == (1, 2)
    assert (found["social"]["cac_minor"], found["social"]["ltv_minor"]) == (150_000, 400_000)
    assert (found["social"]["verdict"], found["social"]["repeat_share"]) == ("low", 0.5)
    assert (found["cold"]["cac_minor"], found["cold"]["verdict"]) == (350_000, "alarm")
    assert found["cold"]["costs_minor"] == {"ad_budgets": 350_000}
    assert found["unknown"]["verdict"] == "unknown"


def review(client: UUID, rating: int | None) -> InteractionRecorded:
    return InteractionRecorded(
        interaction_id=new_id(),
        client_id=client,
        kind="review",
        direction="incoming",
        happened_at=NOW,
        rating=rating,
        occurred_at=NOW,
    )


async def test_reviews_tell_of_a_channels_clients(api: App, scoring: Scoring) -> None:
    social, also, cold = (new_id() for _ in range(3))
    told = [review(social, 5), review(social, 2), review(also, None), review(new_id(), 1)]
    await scoring.hears(
        *told,
        *told,  # the same again
        lead(social, "social"),
        lead(also, "social"),
        lead(cold, "cold"),
        *(closed(client, ago=30, money=100, at=NOW) for client in (social, also, cold)),
        closed(social, ago=20, money=100, at=NOW),
    )
    path = f"/v1/unit-economics?begin={DAY[40]}&end={DAY[1]}"
    table = (await api.call("GET", path, role="analyst")).json()

    found = {c["channel"]: (c["reviews"], c["average_rating"]) for c in table["channels"]}
    assert found == {"social": (3, 3.5), "cold": (0, None)}
    assert {c["channel"]: c["ltv_minor"] for c in table["channels"]} == {"social": 150, "cold": 100}
    touched = await scoring.database.pool.fetchval("SELECT count(*) FROM touches")
    assert touched == 0  # nobody of ours spoke with them


async def test_a_cost_counts_by_its_days_in_the_period_and_can_be_taken_back(api: App) -> None:
    made = (
        await api.call("POST", "/v1/acquisition-costs", cost("ads", 1000, first=19, last=10))
    ).json()
    half = f"begin={DAY[14]}&end={DAY[1]}"

    table = (await api.call("GET", f"/v1/unit-economics?{half}", role="marketer")).json()
    listed = (await api.call("GET", f"/v1/acquisition-costs?{half}", role="marketer")).json()
    gone = await api.call("DELETE", f"/v1/acquisition-costs/{made['cost_id']}")
    again = await api.call("DELETE", f"/v1/acquisition-costs/{made['cost_id']}")

    assert [c["cost_minor"] for c in table["channels"]] == [500]
    assert listed == [made]
    assert gone.status_code == 204
    assert problem(again) == (404, "cost-not-found")


async def test_what_makes_no_sense_is_refused(api: App) -> None:
    backwards = await api.call("POST", "/v1/acquisition-costs", cost("x", 1, first=1, last=9))
    by_manager = await api.call("POST", "/v1/acquisition-costs", cost("x", 1), role="manager")
    span = await api.call("GET", f"/v1/unit-economics?begin={DAY[1]}&end={DAY[9]}")

    assert problem(backwards) == (422, "request-invalid")
    assert problem(by_manager) == (403, "role-missing")
    assert problem(span) == (422, "span-backwards")
