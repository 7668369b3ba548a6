"""The receiver of the second channel: stands in for a messenger, keeps what was sent."""

import json
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field


class SecondChannelMessage(BaseModel):
    """A message to one person; `id` is the sender's and makes a repetition harmless."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(min_length=1, max_length=200)]
    to: Annotated[str, Field(min_length=1, max_length=500)]
    text: Annotated[str, Field(min_length=1, max_length=10_000)]


class AcceptedMessage(BaseModel):
    provider_id: str


class StoredMessage(SecondChannelMessage):
    provider_id: str
    received_at: datetime


class SecondChannel:
    """Messages in a file of JSON lines, one written before each answer."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()
        self._messages = {message.id: message for message in _load(path)}

    def list(self) -> list[StoredMessage]:
        """Every message once, in the order of arrival."""
        with self._lock:
            return list(self._messages.values())

    def accept(self, message: SecondChannelMessage) -> StoredMessage | None:
        """Keep a message. Twice the same is kept once; None if the id was used for another."""
        with self._lock:
            known = self._messages.get(message.id)
            if known is not None:
                return known if (known.to, known.text) == (message.to, message.text) else None
            stored = StoredMessage(
                **message.model_dump(),
                provider_id=uuid.uuid4().hex,
                received_at=datetime.now(UTC),
            )
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(stored.model_dump_json() + "\n")
            self._messages[message.id] = stored
            return stored

    def router(self) -> APIRouter:
        router = APIRouter()

        @router.post("/second-channel/messages", response_model=AcceptedMessage)
        def send(message: SecondChannelMessage) -> StoredMessage | JSONResponse:
            stored = self.accept(message)
            if stored is None:
                problem = {"title": "This id was used for another message", "status": 409}
                return JSONResponse(problem, 409, media_type="application/problem+json")
            return stored

        @router.get("/second-channel/messages.json")
        def messages() -> list[StoredMessage]:
            return self.list()

        return router


def _load(path: Path) -> list[StoredMessage]:
    """Read the messages; a line torn by a crash was never acknowledged and is cut off."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
        path.write_bytes(b"".join(lines))
    return [StoredMessage.model_validate(json.loads(line)) for line in lines]
