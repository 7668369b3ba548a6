"""The bare endpoint that creating a client is measured against: FastAPI, asyncpg, one statement.

No tokens, no idempotency, no normalisation, no duplicates, no metrics: what is left of the request
when Baza is taken away. Source: performance.md, section 4 (/c3).
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
from fastapi import FastAPI, Request
from pydantic import BaseModel

TABLES = """
CREATE TABLE contacts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, uid uuid NOT NULL UNIQUE,
    name text NOT NULL, phone text, email text, note text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON contacts (phone);
CREATE INDEX ON contacts (email);
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text NOT NULL, key text NOT NULL,
    data text NOT NULL
);
"""
_CREATE = """
WITH made AS (
    INSERT INTO contacts (uid, name, phone, email, note) VALUES ($1, $2, $3, $4, $5) RETURNING uid
)
INSERT INTO outbox (topic, key, data) SELECT 'clients', uid::text, $6 FROM made
"""


class NewContact(BaseModel):
    name: str
    phone: str | None = None
    email: str | None = None
    note: str | None = None


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["FLOOR_URL"], min_size=8, max_size=8) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=_lifespan)


@app.get("/livez")
async def livez() -> dict[str, bool]:
    return {"alive": True}


@app.post("/contacts", status_code=201)
async def create(contact: NewContact, request: Request) -> dict[str, Any]:
    uid = uuid4()
    await request.app.state.pool.execute(
        _CREATE,
        *(uid, contact.name, contact.phone, contact.email, contact.note),
        contact.model_dump_json(),
    )
    return {"id": uid, **contact.model_dump()}
