"""POST /v1/clients beside the bare one-statement endpoint.

Run it by `python -m tests.benchmarks.create_client`.
Each request has a signed token and an Idempotency-Key; floor and ours are measured in turn.
"""

import asyncio
import itertools
import statistics
import sys

import asyncpg
import orjson

from tests.benchmarks.contacts_server import (
    contacts_server,
    durable_postgres,
    new_database,
    uvicorn,
)
from tests.benchmarks.floor_app import TABLES
from tests.benchmarks.http_load import NewRequest, rate, request
from tests.shared.issuer import Issuer

PAIRS = 3
SECONDS = 2.0
_numbers = itertools.count()


def _new_floor() -> bytes:
    number = next(_numbers)
    phone, email = f"+7912{number:07d}", f"client-{number}@example.com"
    body = {"name": f"Клиент {number}", "phone": phone, "email": email, "note": "с сайта"}
    return request("POST", "/contacts", orjson.dumps(body))


def _ours(token: str) -> NewRequest:
    def make() -> bytes:
        number = next(_numbers)
        phone, email = f"8 (912) {number:07d}", f"client-{number}@example.com"
        body = {"name": f"Клиент {number}", "phones": [phone], "email": email, "note": "с сайта"}
        headers = (f"authorization: Bearer {token}", f"idempotency-key: k-{number}")
        return request("POST", "/v1/clients", orjson.dumps(body), *headers)

    return make


async def _measure(postgres: str) -> dict[str, object]:
    floor_url = await new_database(postgres, "bench_floor")
    connection = await asyncpg.connect(floor_url)
    await connection.execute(TABLES)
    await connection.close()
    async with (
        Issuer().serving() as issuer,
        uvicorn("tests.benchmarks.floor_app:app", {"FLOOR_URL": floor_url}) as floor_port,
        contacts_server(postgres, issuer) as (port, _url),
    ):
        make = _ours(issuer.token("integration"))
        await rate(floor_port, _new_floor, seconds=0.5)
        await rate(port, make, seconds=0.5)
        pairs = [
            (
                await rate(floor_port, _new_floor, seconds=SECONDS),
                await rate(port, make, seconds=SECONDS),
            )
            for _ in range(PAIRS)
        ]
    return {
        "name": "create",
        "value": round(statistics.median(ours for _, ours in pairs)),
        "unit": "requests/s",
        "limit": round(statistics.median(floor for floor, _ in pairs)),
        "ratio": round(statistics.median(ours / floor for floor, ours in pairs), 3),
    }


def main() -> None:
    """Measure and print one line of JSON."""
    with durable_postgres() as postgres:
        result = asyncio.run(_measure(postgres))
    sys.stdout.write(orjson.dumps(result).decode() + "\n")


if __name__ == "__main__":
    main()
