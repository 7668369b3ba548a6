"""Sandbox mode only: the suite's clock by API, so that a training's six months pass in a second."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Request as HttpRequest
from pydantic import BaseModel, Field

from libs.shared import audit
from libs.shared.auth import Principal, Role, require
from libs.shared.clock import Clock
from libs.shared.request_bodies import Request
from libs.shared.routes import Db, Now, router

MAX_SECONDS = 315_576_000  # ten years at once


class AdvanceClock(Request):
    """How far time jumps."""

    seconds: Annotated[int, Field(strict=True, ge=0, le=MAX_SECONDS, examples=[900])]


class ClockView(BaseModel):
    """The suite's time."""

    now: datetime


def sandbox_router() -> APIRouter:
    """Routes to read and to advance the clock; mounted in sandbox mode only."""
    routes = router(prefix="/v1/sandbox", tags=["sandbox"])

    @routes.get("/clock")
    async def read_clock(_caller: Annotated[Principal, Depends(require())], now: Now) -> ClockView:
        """Tell the suite's time, which may be far from the real one."""
        return ClockView(now=now)

    @routes.post("/clock/advance")
    async def advance_clock(
        body: AdvanceClock,
        caller: Annotated[Principal, Depends(require(Role.ADMIN))],
        request: HttpRequest,
        database: Db,
    ) -> ClockView:
        """Let time jump forward; everything that falls due meanwhile happens at once."""
        clock: Clock = request.app.state.clock
        async with database.transaction() as connection:
            now = await clock.advance(connection, timedelta(seconds=body.seconds))
            await audit.record(
                connection,
                action="clock.advanced",
                subject_type="clock",
                subject_id="sandbox",
                details={"seconds": body.seconds},
                at=now,
                actor=caller.subject,
            )
        return ClockView(now=now)

    return routes
