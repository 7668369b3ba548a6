"""The history that the value model reads is, client for client, the published CDNOW summary.

Source: P. Fader and B. Hardie, CDNOW sample of 2,357 customers: purchases until 30 September 1997
(39 weeks), frequency, recency and T in weeks. Both files come inside the package `lifetimes`.
"""

from collections import Counter
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from libs.shared.ids import new_id
from services.scoring.rules_in_force import rules_in_force
from services.scoring.value_models import Row, history_of
from tests.scoring.conftest import Scoring
from tests.scoring.test_buy_till_you_die import cdnow, dataset

END = date(1997, 9, 30)
CENTS_ARE_KOPECKS = "RUB"  # the preset's currency; the summary has no money


def purchases() -> list[tuple[UUID, UUID, date, datetime, int, str]]:
    """Rows of the table; the sample's number of a customer is the client's id."""
    rows = []
    for line in dataset("CDNOW_sample.txt").splitlines():
        _, customer, day, _, dollars = line.split()
        bought = date(int(day[:4]), int(day[4:6]), int(day[6:]))
        if bought <= END:
            at = datetime.combine(bought, time(12), tzinfo=UTC)
            amount = int(Decimal(dollars) * 100)
            client = UUID(int=int(customer))
            rows.append((new_id(), client, bought, at, amount, CENTS_ARE_KOPECKS))
    return rows


async def test_every_customer_has_the_published_frequency_recency_and_age(
    scoring: Scoring,
) -> None:
    published = {UUID(int=int(row["ID"])): row for row in cdnow()}
    end = datetime.combine(END, time(12), tzinfo=UTC)
    async with scoring.database.transaction() as tx:
        await tx.copy_records_to_table(
            "purchases",
            records=purchases(),
            columns=("deal_id", "client_id", "day", "closed_at", "amount_minor", "currency"),
        )
        rules = await rules_in_force(tx)
        found: dict[UUID, Row | None] = {
            client: await history_of(tx, client, rules, end) for client in published
        }

    def told(row: Any) -> tuple[int, float, float]:
        return int(row["frequency"]), round(float(row["recency"]), 2), round(float(row["T"]), 2)

    ours = {c: (int(row[0]), round(row[1], 2), round(row[2], 2)) for c, row in found.items() if row}
    assert ours == {client: told(row) for client, row in published.items()}
    counts = Counter(min(repeats, 7) for repeats, _, _ in ours.values())
    assert [counts[n] for n in range(8)] == [1411, 439, 214, 100, 62, 38, 29, 64]
