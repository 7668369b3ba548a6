"""Closed and reversed deals become purchases, and purchases become segments.

Each event is applied in its order, so the segment history does not depend on how events came in
batches. A deal that is told of twice counts once; a reversal of a purchase nobody told us of is
refused and waits as a dead letter.
"""

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from libs.shared.at_once import Statement
from libs.shared.database import Connection
from libs.shared.errors import DomainError
from libs.shared.events import DealClosed, DealReversed, Event
from services.scoring.plain_purchases import buy_plainly, buying_plainly
from services.scoring.rules import Rules
from services.scoring.score_keeping import keep, last_rules, load_alone, rules_last_seen
from services.scoring.standing import Change

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
    deals = await buy_plainly(tx, deals, await rules_last_seen(tx))
    if not deals:
        return
    rules, standings, told_before = await load_alone(
        tx, [deal.client_id for deal in deals], [deal.deal_id for deal in deals]
    )
    known = set(told_before)
    moves: list[tuple[Change, Event | None]] = []
    purchases = []
    for deal in deals:
        if deal.deal_id in known:
            continue
        known.add(deal.deal_id)  # the same deal again in this batch counts once
        day = rules.day_of(deal.closed_at)
        value = rules.value_minor(deal.amount_minor, deal.currency)
        for change in standings[deal.client_id].buy(day, value, at=deal.occurred_at, rules=rules):
            moves.append((change, deal))  # noqa: PERF401  # thousands of lists less
        purchases.append(
            (deal.deal_id, deal.client_id, day, deal.closed_at, deal.amount_minor, deal.currency)
        )
    await keep(tx, standings.values(), moves, rules, purchases=purchases)


def closed_deals_at_once(deals: Sequence[DealClosed]) -> Statement | None:
    """`score_closed_deals` where all of them are plain."""
    rules = last_rules()
    return buying_plainly(deals, rules) if rules else None


async def score_reversed_deals(reversals: Sequence[DealReversed], tx: Connection) -> None:
    """Take back purchases, wholly or in part, and move the clients whose segment that changes.

    Raises:
        PurchaseUnknown: The deal is not among the purchases.
        ReturnExceedsPurchase: More is given back than is left of it.
    """
    rules, standings, _ = await load_alone(tx, [reversal.client_id for reversal in reversals])
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
    await keep(tx, standings.values(), moves, rules)


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
