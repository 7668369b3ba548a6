"""What is outside of Baza, played by one local process: `python -m deploy.local.outside`.

A token issuer, a mail server, the receiver of the second channel, and pages to look at them. It
keeps its key, its mails and its messages in the data folder.
"""

import argparse
import asyncio
import json
from pathlib import Path
from typing import Annotated
from uuid import UUID

import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from pydantic import StringConstraints

from deploy.local import outside_pages
from deploy.local.mailbox import Mailbox
from deploy.local.ports import SERVICES, Ports
from deploy.local.second_channel import SecondChannel
from deploy.local.token_issuer import TokenIssuer

HOST = "127.0.0.1"
ASYNCAPI = Path(__file__).resolve().parents[2] / "docs" / "asyncapi.json"


def create_app(data: Path, ports: Ports, mailbox: Mailbox) -> FastAPI:
    """The HTTP side of everything; SMTP is the mailbox's own.

    Args:
        data: Keeps the signing key and the second channel's messages.
    """
    issuer = f"http://{HOST}:{ports.outside}"
    tokens = TokenIssuer(data / "token-key.json", issuer)
    second_channel = SecondChannel(data / "second-channel.jsonl")
    # No pages by FastAPI itself: they would load scripts from the net.
    app = FastAPI(title="Outside of Baza", docs_url=None, redoc_url=None)
    app.include_router(tokens.router())
    app.include_router(second_channel.router())

    @app.get("/", response_class=HTMLResponse)
    def index() -> HTMLResponse:
        apis = {name: f"http://{HOST}:{ports.api(name)}" for name in SERVICES}
        return _html(outside_pages.index_page(apis, issuer=issuer))

    @app.get("/mail", response_class=HTMLResponse)
    def mail() -> HTMLResponse:
        return _html(outside_pages.mail_page(mailbox.list(), second_channel.list()))

    @app.get("/mail.json")
    def mail_as_json() -> list[dict[str, object]]:
        return [found.to_json() for found in mailbox.list()]

    @app.get("/mail/{mail_id}", response_class=HTMLResponse)
    def single_mail(mail_id: Annotated[str, StringConstraints(max_length=100)]) -> HTMLResponse:
        found = mailbox.find(mail_id)
        if found is None:
            return _html(outside_pages.missing_page(), status=404)
        return _html(outside_pages.single_mail_page(found))

    @app.get("/reschedule/{interaction_id}", response_class=HTMLResponse)
    def reschedule(interaction_id: UUID) -> HTMLResponse:
        return _html(outside_pages.reschedule_page(str(interaction_id)))

    @app.get("/asyncapi.json")
    def asyncapi() -> Response:
        if not ASYNCAPI.exists():
            return JSONResponse({"title": "Not written yet: run `make contracts`"}, 404)
        return FileResponse(ASYNCAPI, media_type="application/json")

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ready"}

    return app


async def serve(data: Path, ports: Ports) -> None:
    """Serve HTTP and SMTP until SIGTERM or SIGINT."""
    mailbox = Mailbox(data / "mail")
    app = create_app(data, ports, mailbox)
    smtp = await mailbox.serve(HOST, ports.smtp)
    async with smtp:
        config = uvicorn.Config(
            app, host=HOST, port=ports.outside, access_log=False, log_level="warning"
        )
        await uvicorn.Server(config).serve()


def _html(page: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(page, status, headers=outside_pages.SECURITY_HEADERS)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.local.outside")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ports", type=json.loads, default={}, help="JSON, where not the usual")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.data, Ports(**arguments.ports)))


if __name__ == "__main__":
    _main()
