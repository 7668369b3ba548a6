"""HTTP in: pages that clients have looked at."""

from typing import Any

from fastapi import Request as HttpRequest
from starlette.responses import Response

from libs.shared.http import Db, Now, OwnIdempotency, router
from services.contacts.access import BatchWriter
from services.contacts.batches import BatchView, answer_once, body_of, parse, read_json
from services.contacts.pages.viewing import PageViewBatch, PageViewBatchBody, keep_views

routes = router(prefix="/v1", tags=["pages"])


@routes.post(
    "/page-views/batch",
    responses={200: {"model": BatchView}},
    openapi_extra=body_of(PageViewBatchBody),
    summary="Tell of up to 1000 pages that clients have looked at; none is counted twice",
)
async def keep_page_views(
    request: HttpRequest, _caller: BatchWriter, database: Db, now: Now, claim: OwnIdempotency
) -> Response:
    given = parse(PageViewBatch, await read_json(request))

    async def work(tx: Any) -> bytes:
        return await keep_views(tx, given, now=now)

    return await answer_once(database, claim, work)
