"""POST /v1/clients beside the bare one-statement endpoint.

Each request has a signed token and an Idempotency-Key; floor and ours are measured in turn.
"""

import itertools

import asyncpg
import orjson

from tests.benchmarks.figures import Figure
from tests.benchmarks.floor_app import TABLES
from tests.benchmarks.http_load import NewRequest, rate, request
from tests.benchmarks.servers import Servers, contacts_server, new_database, uvicorn
from tests.shared.issuer import Issuer

PAIRS = 6
SECONDS = 0.8
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


async def measure(servers: Servers) -> list[Figure]:
    floor_url = await new_database(servers.postgres, "bench_floor")
    connection = await asyncpg.connect(floor_url)
    await connection.execute(TABLES)
    await connection.close()
    async with (
        Issuer().serving() as issuer,
        uvicorn("tests.benchmarks.floor_app:app", {"FLOOR_URL": floor_url}) as floor_port,
        contacts_server(servers.postgres, issuer) as (port, _url),
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
    return [Figure.of("create", "requests/s", pairs, bar=0.5, aim=0.75)]
