"""The ten segments that the R package `rfm` publishes for its demo come out to the last customer.

Source: R package `rfm`, vignette "RFM analysis: customer level data": 4,906 orders of 995 clients,
analysis date 2006-12-31. The fixture restates each customer's three figures.
"""

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

from libs.shared.events import DealClosed
from libs.shared.ids import new_id
from services.scoring.presets import DEFAULT_RULE_SET
from tests.scoring.conftest import Scoring
from tests.scoring.test_ageing_and_rescoring import activated

ANALYSIS = datetime(2006, 12, 31, 12, tzinfo=UTC)
RULE_SET = DEFAULT_RULE_SET.model_copy(
    update={"method": "quintile", "period_days": 3650, "frequency_counts": "purchases"}
)
PUBLISHED = {  # customers, orders, revenue
    "about_to_sleep": (102, 283, 23449),
    "at_risk": (28, 216, 22227),
    "cant_lose_them": (47, 274, 32446),
    "champions": (35, 316, 31646),
    "lost": (148, 393, 35324),
    "loyal_customers": (170, 799, 76562),
    "need_attention": (10, 57, 4562),
    "new_customers": (104, 329, 28837),
    "potential_loyalist": (342, 2211, 204856),
    "promising": (9, 28, 4249),
}


def orders() -> list[DealClosed]:
    """Orders with the published figures; when a customer's earlier orders were made is not told."""
    lines = (Path(__file__).parent / "rfm_demo.csv").read_text(encoding="utf-8").splitlines()
    made = []
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        client, count = new_id(), int(row["orders"])
        at = ANALYSIS - timedelta(days=int(row["recency_days"]))
        rest = int(row["revenue"]) - (count - 1)
        made += [
            DealClosed(
                deal_id=new_id(),
                client_id=client,
                closed_at=at,
                amount_minor=100 * (1 if number else rest),
                currency="RUB",
                occurred_at=ANALYSIS,
            )
            for number in range(count)
        ]
    return made


async def test_the_published_segments_come_out_exactly(scoring: Scoring) -> None:
    deals = orders()
    assert len(deals) == 4906

    await scoring.hears(*deals)
    await activated(scoring.database, RULE_SET, ANALYSIS)
    await scoring.applies_new_rules(ANALYSIS)

    rows = await scoring.database.pool.fetch(
        "SELECT segment, count(*) AS clients, sum(frequency) AS orders,"
        " sum(monetary_minor) / 100 AS revenue FROM scores GROUP BY segment"
    )
    found = {row[0]: (row[1], int(row[2]), int(row[3])) for row in rows}
    assert found == PUBLISHED
