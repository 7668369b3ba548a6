"""What may stand in a request's body.

JSON is read strictly: what PostgreSQL or our own events could not hold (NUL characters, halves of
surrogate pairs, numbers beyond 64 bit, NaN, very deep nesting) is refused at the door, so that no
rule further in has to think of it.
"""

import re
from collections.abc import Iterator
from typing import Any

import orjson
from fastapi import Request as HttpRequest
from pydantic import BaseModel, ConfigDict

from libs.shared.field_types import MAX_INT
from libs.shared.problems import BodyRefused, ContentTypeUnsupported, RequestInvalid, pointer

MAX_DEPTH = 64
_LONG_NUMBER = re.compile(rb"\d{19}")


class Request(BaseModel):
    """A request's body: unknown fields are refused, spaces around texts are dropped."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, frozen=True)


class JsonRequest(HttpRequest):
    """A request whose JSON is read strictly. FastAPI asks it for `json()`."""

    async def json(self) -> Any:
        """The parsed body.

        Raises:
            json.JSONDecodeError: It is not JSON; NaN, halves of surrogate pairs and more than
                1024 levels are not JSON.
            BodyRefused: It is JSON, but holds what cannot be stored.
        """
        raw = await self.body()
        value = orjson.loads(raw)
        if _looks_odd(raw, value) and (error := next(_oddities(value, ()), None)) is not None:
            raise BodyRefused(RequestInvalid(errors=[error], errors_total=1))
        return value


def _looks_odd(raw: bytes, value: Any) -> bool:
    """A cheap look over the bytes; most bodies need no walk through their values."""
    if b"\\u0000" in raw or _LONG_NUMBER.search(raw):
        return True
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return False
    try:
        orjson.dumps(value)  # refuses more than 254 levels, at the speed of C
    except TypeError:
        return True
    return False


def _oddities(value: Any, path: tuple[str | int, ...]) -> Iterator[dict[str, Any]]:
    if len(path) > MAX_DEPTH:
        yield _error(path, "too-deep", "Nested too deeply", "Слишком глубокая вложенность.")
    elif isinstance(value, str):
        if "\0" in value:
            yield _error(path, "nul-character", "NUL characters are not allowed", "Символ NUL.")
    elif isinstance(value, int | float):
        if not -MAX_INT - 1 <= value <= MAX_INT:
            yield _error(path, "number-too-large", "Beyond 64 bit", "Число больше 64 бит.")
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _oddities(key, path)
            yield from _oddities(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _oddities(part, (*path, index))


def _error(path: tuple[str | int, ...], code: str, detail: str, ru: str) -> dict[str, Any]:
    place = pointer(path).replace("\0", "")
    return {"pointer": place, "in": "body", "detail": detail, "ru": ru, "code": code}


def demand_json(request: HttpRequest) -> None:
    """Check that a body, if there is one, says that it is JSON.

    Raises:
        ContentTypeUnsupported: It says something else or nothing.
    """
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        return
    if not (media_type.startswith("application/") and media_type.endswith("+json")):
        raise ContentTypeUnsupported
