"""Closed and reversed deals become purchases, and purchases become segments.

Each event is applied in its order, so the segment history does not depend on how events came in
batches. A deal that is told of twice counts once; a reversal of a purchase nobody told us of is
refused and waits as a dead letter.
"""

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from libs.shared.database import Connection
from libs.shared.errors import DomainError
from libs.shared.events import DealClosed, DealReversed, Event
from services.scoring.rules import Rules
from services.scoring.rules_in_force import rules_in_force
from services.scoring.score_keeping import load, say, store
from services.scoring.standing import Change

# Which ones were new is told only where not all were: reading thousands of ids costs as much again.
_ADD = """
    WITH new AS (
        INSERT INTO purchases (deal_id, client_id, day, closed_at, amount_minor, currency)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::date[], $4::timestamptz[], $5::bigint[],
            $6::text[])
        ON CONFLICT (deal_id) DO NOTHING RETURNING deal_id
    ), counted AS (INSERT INTO purchase_counts (added) SELECT count(*) FROM new)
    SELECT CASE WHEN count(*) < cardinality($1) THEN coalesce(array_agg(deal_id), '{}') END FROM new
"""
_RETURN = """
    INSERT INTO returns (reversal_id, deal_id, client_id, reversed_at, amount_minor, is_full)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (reversal_id) DO NOTHING
"""


class PurchaseUnknown(DomainError):
    """This deal was never told to be closed."""

    code = "purchase-unknown"
    ru = "О закрытии этой сделки ничего не известно."


class ReturnExceedsPurchase(DomainError):
    """More is given back than was paid."""

    code = "return-exceeds-purchase"
    ru = "Возвращается больше, чем было заплачено."


async def score_closed_deals(deals: Sequence[DealClosed], tx: Connection) -> None:
    """Add purchases and move the clients whose segment they change.

    Raises:
        CurrencyWithoutRate: A deal's currency is not in the rule set in force.
    """
    rules = await rules_in_force(tx)
    values = [rules.value_minor(deal.amount_minor, deal.currency) for deal in deals]
    days = [rules.day_of(deal.closed_at) for deal in deals]
    standings = await load(tx, [deal.client_id for deal in deals], rules)
    added: list[UUID] | None = await tx.fetchval(
        _ADD,
        [deal.deal_id for deal in deals],
        [deal.client_id for deal in deals],
        days,
        [deal.closed_at for deal in deals],
        [deal.amount_minor for deal in deals],
        [deal.currency for deal in deals],
    )
    new = None if added is None else set(added)  # None: all of them
    moves: list[tuple[Change, Event | None]] = []
    for deal, day, value in zip(deals, days, values, strict=True):
        if new is not None:
            if deal.deal_id not in new:
                continue
            new.remove(deal.deal_id)  # the same deal again in this batch counts once
        for change in standings[deal.client_id].buy(day, value, at=deal.occurred_at, rules=rules):
            moves.append((change, deal))  # noqa: PERF401  # thousands of lists less
    await store(tx, standings.values(), rules)
    await say(tx, moves)


async def score_reversed_deals(reversals: Sequence[DealReversed], tx: Connection) -> None:
    """Take back purchases, wholly or in part, and move the clients whose segment that changes.

    Raises:
        PurchaseUnknown: The deal is not among the purchases.
        ReturnExceedsPurchase: More is given back than is left of it.
    """
    rules = await rules_in_force(tx)
    standings = await load(tx, (reversal.client_id for reversal in reversals), rules)
    purchases = await _lock_purchases(tx, reversals)
    moves: list[tuple[Change, Event | None]] = []
    for reversal in reversals:
        purchase = purchases.get(reversal.deal_id)
        if purchase is None:
            raise PurchaseUnknown(deal_id=str(reversal.deal_id))
        moves += [
            (change, reversal)
            for change in standings[reversal.client_id].give_back(
                purchase.day,
                purchase.give_back(reversal, rules),
                is_full=reversal.is_full,
                at=reversal.occurred_at,
                rules=rules,
            )
        ]
    await tx.executemany(
        "UPDATE purchases SET returned_minor = $2, is_returned = $3 WHERE deal_id = $1",
        [(p.deal_id, p.returned_minor, p.is_returned) for p in purchases.values()],
    )
    await tx.executemany(
        _RETURN,
        [
            (r.reversal_id, r.deal_id, r.client_id, r.reversed_at, r.amount_minor, r.is_full)
            for r in reversals
        ],
    )
    if gone := sum(reversal.is_full for reversal in reversals):
        await tx.execute("INSERT INTO purchase_counts (added) VALUES ($1)", -gone)
    await store(tx, standings.values(), rules)
    await say(tx, moves)


class _Purchase:
    """A purchase while reversals are applied to it."""

    def __init__(self, row: asyncpg.Record) -> None:
        self.deal_id: UUID = row["deal_id"]
        self.day = row["day"]
        self.amount_minor: int = row["amount_minor"]
        self.currency: str = row["currency"]
        self.returned_minor: int = row["returned_minor"]
        self.is_returned: bool = row["is_returned"]

    def give_back(self, reversal: DealReversed, rules: Rules) -> int:
        """Note a reversal; how much less the purchase is worth, in the reporting currency."""
        before = rules.value_minor(self.amount_minor - self.returned_minor, self.currency)
        self.returned_minor += reversal.amount_minor
        if self.is_returned or self.returned_minor > self.amount_minor:
            raise ReturnExceedsPurchase(deal_id=str(self.deal_id))
        if reversal.is_full:
            self.returned_minor, self.is_returned = self.amount_minor, True
        return before - rules.value_minor(self.amount_minor - self.returned_minor, self.currency)


async def _lock_purchases(
    tx: Connection, reversals: Sequence[DealReversed]
) -> dict[UUID, _Purchase]:
    rows = await tx.fetch(
        "SELECT * FROM purchases WHERE deal_id = ANY($1::uuid[]) ORDER BY deal_id FOR UPDATE",
        sorted({reversal.deal_id for reversal in reversals}),
    )
    return {row["deal_id"]: _Purchase(row) for row in rows}
