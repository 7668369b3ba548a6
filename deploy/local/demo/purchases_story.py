"""First story: real purchases become clients, deals, segments and a list of whom to call."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.local.demo.cdnow import Purchase
from deploy.local.demo.doors import Doors, in_batches, until
from deploy.local.demo.observer import Observer, read_current_segments
from services.scoring.presets import TEN_SEGMENTS

SOURCE = "cdnow"
CLIENT_BATCH = 1000
DEAL_BATCH = 2500


@dataclass(slots=True)
class PurchaseFacts:
    """What the first story found out."""

    clients: int = 0
    deals_closed: int = 0
    purchase_days: int = 0
    clients_without_segment: int = 0
    rescoring_mismatches: int = 0
    segments_current_mismatches: int = 0
    deals_per_second: float = 0.0
    table: dict[str, Any] | None = None
    queue: Sequence[dict[str, Any]] = ()
    names: dict[str, str] | None = None


def rule_set() -> dict[str, Any]:
    """An analyst's rules for a shop that sells discs: small sums, eighteen months, US cents."""
    return {
        "title": "CDNOW: магазин дисков",
        "period_days": 600,
        "reporting_currency": "USD",
        "method": "fixed",
        "fixed_cuts": {
            "recency_days": [91, 181, 366, 451],
            "frequency": [2, 3, 5, 9],
            "monetary_minor": [2000, 5000, 12000, 30000],
        },
        "segments": [rule.model_dump(mode="json") for rule in TEN_SEGMENTS],
    }


async def activate_rules(doors: Doors) -> None:
    """Draft the shop's rules and put them in force."""
    drafted = await doors.call("POST", "scoring", "/v1/rule-sets", rule_set(), by="analyst")
    await doors.call(
        "POST", "scoring", f"/v1/rule-sets/{drafted['version']}/activate", by="analyst"
    )


async def add_clients(doors: Doors, customers: Sequence[str]) -> dict[str, str]:
    """Create a card for each customer; ids by customer number."""
    ids: dict[str, str] = {}
    for batch in in_batches(customers, CLIENT_BATCH):
        answer = await doors.call(
            "POST",
            "contacts",
            "/v1/clients/batch",
            {
                "source": SOURCE,
                "items": [
                    {
                        "external_id": f"cdnow-{customer}",
                        "kind": "person",
                        "name": f"Покупатель {customer}",
                        "email": f"customer-{customer}@cdnow.example.com",
                        "status": "active",
                        "tags": ["CDNOW"],
                    }
                    for customer in batch
                ],
            },
            by="integration",
        )
        ids |= {customer: item["id"] for customer, item in zip(batch, answer["items"], strict=True)}
    return ids


async def close_deals(
    doors: Doors, purchases: Sequence[Purchase], ids: dict[str, str], tick: Any
) -> int:
    """Bring every purchase as a won deal, oldest first; how many were created."""
    created = 0
    for batch in in_batches(purchases, DEAL_BATCH):
        answer = await doors.call(
            "POST",
            "contacts",
            "/v1/deals/batch",
            {
                "source": SOURCE,
                "items": [
                    {
                        "external_id": purchase.external_id,
                        "client_id": ids[purchase.customer],
                        "amount_minor": purchase.amount_minor,
                        "currency": "USD",
                        "closed_at": purchase.closed_at,
                        "outcome": "won",
                    }
                    for purchase in batch
                ],
            },
            by="integration",
            headers={"Idempotency-Key": f"cdnow-deals-{batch[0].external_id}"},
        )
        created += answer["created"]
        tick(len(batch))
    return created


async def scored(doors: Doors, observer: Observer, purchases: int) -> list[dict[str, Any]]:
    """Wait until scoring has heard every purchase and told every move; all scores then."""

    async def told() -> bool:
        if observer.names["deal.closed"] < purchases:
            return False
        table = await doors.call("GET", "scoring", "/v1/segments", by="analyst")
        return bool(table["purchases"] == purchases)

    await until("every purchase is scored", told, limit=120)
    scores = await doors.all_pages("scoring", "/v1/scores")
    await all_told(observer, scores)
    return scores


async def all_told(observer: Observer, scores: Sequence[dict[str, Any]]) -> None:
    """Wait until as many moves were seen in the broker as the clients' seq say there were."""

    async def heard() -> bool:
        seen = sum(seq for seq, _ in observer.segments.values())
        return seen == sum(int(score["seq"]) for score in scores)

    await until("every move is told", heard)


async def touches_settled(doors: Doors) -> None:
    """Wait until everybody's next touch is planned."""

    async def settled() -> bool:
        base = await doors.call("GET", "scoring", "/v1/queue/summary", by="analyst")
        return bool(base["unsettled"] == 0)

    await until("every touch is planned", settled)


async def play(
    doors: Doors, observer: Observer, purchases: Sequence[Purchase], say: Any, tick: Any
) -> PurchaseFacts:
    """Play the story.

    Args:
        say: Told what happens next.
        tick: Told how many more purchases were brought.
    """
    facts = PurchaseFacts()
    await activate_rules(doors)
    customers = sorted({purchase.customer for purchase in purchases})
    say(f"{len(customers):,} clients through POST /v1/clients/batch")
    ids = await add_clients(doors, customers)
    facts.clients = len(set(ids.values()))
    say(f"{len(purchases):,} purchases through POST /v1/deals/batch")
    began_ms = time.time() * 1000
    facts.deals_closed = await close_deals(doors, purchases, ids, tick)
    scores = await scored(doors, observer, len(purchases))
    facts.deals_per_second = len(purchases) / (observer.last_change_ms - began_ms) * 1000
    say("checking: segments.current against scoring's table, a full rescoring against the stream")
    facts.purchase_days = sum(score["frequency"] for score in scores)
    buyers = set(ids.values())
    facts.clients_without_segment = len(
        buyers - {score["client_id"] for score in scores if score["segment"]}
    )
    facts.segments_current_mismatches = await compare_with_current(doors, scores)
    facts.rescoring_mismatches = await rescore(doors)
    facts.table = await doors.call("GET", "scoring", "/v1/segments", by="analyst")
    await touches_settled(doors)
    facts.queue = await doors.call("GET", "scoring", "/v1/queue?limit=10", by="analyst")
    facts.names = {client: number for number, client in ids.items()}
    return facts


async def compare_with_current(doors: Doors, scores: Sequence[dict[str, Any]]) -> int:
    """How many clients differ between the compacted topic and scoring's own table."""
    current = await read_current_segments(doors.suite.kafka, doors.suite.topic_prefix)
    table = {score["client_id"]: (score["seq"], score["segment"]) for score in scores}
    return sum(current.get(client) != table.get(client) for client in current.keys() | table.keys())


async def rescore(doors: Doors) -> int:
    """Have everything scored again from the bare purchases; what differed, history included."""
    job = await doors.call("POST", "scoring", "/v1/rescorings", {}, by="analyst")
    path = f"/v1/rescorings/{job['rescoring_id']}"

    async def finished() -> bool:
        return bool((await doors.call("GET", "scoring", path, by="analyst"))["finished_at"])

    await until("the full rescoring", finished)
    report = await doors.call("GET", "scoring", path, by="analyst")
    return int(report["mismatches"] + report["history_mismatches"])
