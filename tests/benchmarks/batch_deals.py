"""POST /v1/deals/batch and /v1/clients/batch alone: `python -m tests.benchmarks.batch_deals`.

The limit is the bare statement: the same deals and outbox rows by unnest on one connection.
"""

import asyncio
import itertools
import statistics
import sys
import time
from typing import Any

import asyncpg
import orjson

from libs.shared import outbox
from libs.shared.events import DealClosed
from libs.shared.ids import new_id
from tests.benchmarks.contacts_server import contacts_server, durable_postgres
from tests.benchmarks.http_load import Line, request
from tests.shared.issuer import Issuer
from tests.shared.streams import NOON

CLIENTS = 5_000
CLIENT_BATCH = 1_000
DEALS = 5_000
ROUNDS = 5

_numbers = itertools.count()
_BARE = """
    INSERT INTO deals (id, client_id, state, pipeline, stage, amount_minor, currency, opened_at,
        closed_at, source, external_id, created_at)
    SELECT id, client, 'won', 'standard', 'closing', 1999, 'USD', $3, $3, 'bare', external, $3
    FROM unnest($1::uuid[], $2::uuid[], $4::text[]) AS given (id, client, external)
"""


async def _post(line: Line, token: str, path: str, body: Any) -> Any:
    key = f"idempotency-key: b-{next(_numbers)}"
    raw = request("POST", path, orjson.dumps(body), f"authorization: Bearer {token}", key)
    status, answer = await line.send(raw)
    if status != 200:
        raise RuntimeError(f"{status}: {answer[:300]!r}")
    return orjson.loads(answer)


def _client(number: int) -> dict[str, Any]:
    return {
        "external_id": f"c-{number}",
        "name": f"Покупатель {number}",
        "phones": [f"8 912 {number:07d}"],
        "email": f"customer-{number}@example.com",
        "tags": ["bench"],
    }


def _deal(client_id: str, number: int) -> dict[str, Any]:
    return {
        "external_id": f"d-{number}",
        "client_id": client_id,
        "amount_minor": 1999,
        "currency": "USD",
        "closed_at": "1997-01-01T12:00:00+00:00",
        "outcome": "won",
    }


async def _bare_round(connection: asyncpg.Connection, clients: list[str]) -> float:
    ids = [new_id() for _ in range(DEALS)]
    externals = [f"bare-{next(_numbers)}" for _ in ids]
    owners = [clients[number % CLIENTS] for number in range(DEALS)]
    events = [
        DealClosed(
            deal_id=deal,
            client_id=client,
            closed_at=NOON,
            amount_minor=1999,
            currency="USD",
            occurred_at=NOON,
        )
        for deal, client in zip(ids, owners, strict=True)
    ]
    rows = [outbox.row_of(event) for event in events]
    columns = [[row[name] for row in rows] for name in rows[0]]
    began = time.perf_counter()
    async with connection.transaction():
        await connection.execute(_BARE, ids, owners, NOON, externals)
        await connection.execute(outbox.INSERT_MANY, *columns)
    return DEALS / (time.perf_counter() - began)


async def _measure(postgres: str) -> list[dict[str, Any]]:
    async with (
        Issuer().serving() as issuer,
        contacts_server(postgres, issuer) as (port, url),
        Line(port) as line,
    ):
        token = issuer.token("integration")
        connection = await asyncpg.connect(url)
        clients: list[str] = []
        client_rates, deal_rates, bare_rates = [], [], []
        for start in range(0, CLIENTS, CLIENT_BATCH):
            items = [_client(number) for number in range(start, start + CLIENT_BATCH)]
            began = time.perf_counter()
            body = {"source": "bench", "items": items}
            answer = await _post(line, token, "/v1/clients/batch", body)
            client_rates.append(CLIENT_BATCH / (time.perf_counter() - began))
            clients += [item["id"] for item in answer["items"]]
        for _ in range(ROUNDS):
            items = [_deal(clients[number % CLIENTS], next(_numbers)) for number in range(DEALS)]
            began = time.perf_counter()
            await _post(line, token, "/v1/deals/batch", {"source": "bench", "items": items})
            deal_rates.append(DEALS / (time.perf_counter() - began))
            bare_rates.append(await _bare_round(connection, clients))
        await connection.close()
    return [
        _line("batch_clients", client_rates, None, "clients/s"),
        _line("batch_deals", deal_rates, bare_rates, "deals/s"),
    ]


def _line(name: str, ours: list[float], bare: list[float] | None, unit: str) -> dict[str, Any]:
    value = statistics.median(ours)
    limit = statistics.median(bare) if bare else None
    return {
        "name": name,
        "value": round(value),
        "unit": unit,
        "limit": round(limit) if limit else None,
        "ratio": round(value / limit, 3) if limit else None,
    }


def main() -> None:
    """Measure and print a line of JSON for each."""
    with durable_postgres() as postgres:
        results = asyncio.run(_measure(postgres))
    for result in results:
        sys.stdout.write(orjson.dumps(result).decode() + "\n")


if __name__ == "__main__":
    main()
