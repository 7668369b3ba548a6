"""Stored webhook requests become leads, a moment after they were answered.

Each request is a due row. It is settled with what became of it: `lead: <id>` or `refused: <why>`;
a refused one can be looked at and tried again once the fault is mended. A crash leaves it due.
"""

from datetime import datetime

import asyncpg
import structlog

from libs.shared import failpoints, policies
from libs.shared.database import Connection, is_transient
from libs.shared.timers import Timer, due_column
from services.contacts.leads.form import NotAForm, read_form
from services.contacts.leads.intake import take_in
from services.contacts.policies import FormPolicy, phone_region

BATCH = 100
REFUSED = "refused: "

log = structlog.get_logger()

_DUE = """
    SELECT id, source, body FROM webhook_requests WHERE due_at <= $1 ORDER BY due_at, id LIMIT $2
    FOR UPDATE SKIP LOCKED
"""
_SETTLE = """
    UPDATE webhook_requests SET due_at = NULL, attempts = attempts + 1, outcome = $2 WHERE id = $1
"""


async def take_in_forms(tx: Connection, now: datetime) -> int:
    """Make leads of the requests that are due; at most `BATCH` of them."""
    due = await tx.fetch(_DUE, now, BATCH)
    for request in due:
        try:
            async with tx.transaction():  # a savepoint: one bad form must not undo the others
                outcome = await _taken_in(tx, request, now)
        except NotAForm as error:
            outcome = f"{REFUSED}{error}"
        except Exception as error:
            if is_transient(error):
                raise
            log.exception("form_not_taken_in", webhook_request_id=request["id"])
            outcome = f"{REFUSED}{type(error).__name__}"
        failpoints.reach("form.taken_in")
        await tx.execute(_SETTLE, request["id"], outcome)
    return len(due)


async def _taken_in(tx: Connection, request: asyncpg.Record, now: datetime) -> str:
    names = (await policies.current(tx, FormPolicy)).body
    region = await phone_region(tx)
    asked = read_form(request["body"], source=request["source"], names=names, region=region)
    asked.webhook_request_id = request["id"]
    return f"lead: {await take_in(tx, asked, now=now)}"


FORMS = Timer("forms", due_column("webhook_requests"), take_in_forms)
