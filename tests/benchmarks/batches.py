"""The batch doors alone, beside COPY: the same rows into a table with the same indexes.

The door reads JSON, judges each item, looks for what was brought before, writes the events into
the outbox and remembers its answer; COPY does none of it.
"""

import itertools
import time
from typing import Any

import asyncpg
import orjson

from tests.benchmarks.figures import Figure
from tests.benchmarks.http_load import Line, request
from tests.benchmarks.servers import Servers, contacts_server
from tests.shared.issuer import Issuer

CLIENTS = 5_000
CLIENT_BATCH = 1_000
DEALS = 100_000
DEAL_BATCH = 5_000

_numbers = itertools.count()


async def measure(servers: Servers) -> list[Figure]:
    async with (
        Issuer().serving() as issuer,
        contacts_server(servers.postgres, issuer) as (port, url),
        Line(port) as line,
    ):
        token = issuer.token("integration")
        connection = await asyncpg.connect(url)
        for table in ("clients", "deals"):
            await connection.execute(f"CREATE TABLE copied_{table} (LIKE {table} INCLUDING ALL)")
        clients: list[str] = []
        client_pairs = []
        for _ in range(CLIENTS // CLIENT_BATCH):
            items = [_client(next(_numbers)) for _ in range(CLIENT_BATCH)]
            ids, ours = await _bring(line, token, "/v1/clients/batch", items)
            client_pairs.append((await _copy_rate(connection, "clients", ids), ours))
            clients += ids
        deal_pairs = []
        for _ in range(DEALS // DEAL_BATCH):
            items = [_deal(clients[n % CLIENTS], next(_numbers)) for n in range(DEAL_BATCH)]
            ids, ours = await _bring(line, token, "/v1/deals/batch", items)
            deal_pairs.append((await _copy_rate(connection, "deals", ids), ours))
        await connection.close()
    return [
        # The first round of each warms up.
        Figure.of("import", "deals/s", deal_pairs[1:], bar=0.1, aim=0.2),
        Figure.of("import_clients", "clients/s", client_pairs[1:]),
    ]


async def _bring(
    line: Line, token: str, path: str, items: list[dict[str, Any]]
) -> tuple[list[str], float]:
    """The new ids, and how many a second."""
    body = {"source": "bench", "items": items}
    began = time.perf_counter()
    answer = await _post(line, token, path, body)
    seconds = time.perf_counter() - began
    return [item["id"] for item in answer["items"]], len(items) / seconds


async def _copy_rate(connection: asyncpg.Connection, table: str, ids: list[str]) -> float:
    """COPY the stored rows of these ids into the table's twin, in a transaction."""
    rows = await connection.fetch(f"SELECT * FROM {table} WHERE id = ANY($1::uuid[])", ids)
    if len(rows) != len(ids):
        raise RuntimeError(f"{len(ids)} were brought, {len(rows)} are in {table}")
    records = [tuple(row) for row in rows]
    began = time.perf_counter()
    await connection.copy_records_to_table(f"copied_{table}", records=records)
    return len(rows) / (time.perf_counter() - began)


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
