"""Structured logs: one JSON object a line on standard error, never with personal data in it.

Everything goes through one renderer, our own lines and those of the libraries (uvicorn, aiokafka,
SQLAlchemy). Masking is the last step before rendering, so that no caller can forget it.
"""

import hashlib
import logging
import re
import sys
import traceback
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog
from asyncpg import DataError, PostgresError
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from structlog.typing import EventDict, WrappedLogger

from libs.shared import context

MAX_DEPTH = 6
MAX_TEXT = 8000  # characters of one value
AGAIN_SECONDS = 10.0  # a library's same complaint is shown at most so often

_DROPPED = re.compile(
    r"(^|_)(name|first_name|last_name|full_name|short_name|phones?|e?mails?|texts?|body|"
    r"address(es)?|token|authorization|password|secrets?|cookie|comment|note)$",
    re.IGNORECASE,
)
_KEPT = frozenset({"topic_name", "service_name", "policy_name"})
_NOT_PERSONAL = re.compile(
    r"(^|_)(ids?|at|ms|seconds|bytes|minor|offset|seq|epoch|version|count|total|port|pid|lag)$"
)
_PATTERN = re.compile(
    # What looks like a phone but is none is matched first, and kept.
    r"(?P<keep>\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"
    r"|\b[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\b"
    r"|\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?\b"
    r"|\b(?:\d{1,3}\.){3}\d{1,3}\b)"
    r"|(?P<email>[\w.+%-]+@[\w-]+(?:\.[\w-]+)+)"
    r"|(?P<phone>(?<![0-9A-Za-z])\+?\d(?:[\s().-]{0,3}\d){9,14}(?![0-9A-Za-z]))",
    re.IGNORECASE,
)


def mask(text: str) -> str:
    """Text with phone numbers cut to their last 3 digits and e-mail addresses hashed."""
    if not any(char.isdigit() or char == "@" for char in text):
        return text
    return _PATTERN.sub(_replacement, text[:MAX_TEXT])


def _replacement(found: re.Match[str]) -> str:
    if found["email"]:
        address = found["email"].lower().encode()
        return f"email:{hashlib.sha256(address).hexdigest()[:8]}"
    if found["phone"]:
        return f"***{re.sub(r'[^0-9]', '', found['phone'])[-3:]}"
    return found[0]


def _masked(key: str, value: Any, depth: int = 0) -> Any:
    if isinstance(value, bool | float | None):
        return value
    if isinstance(value, int):
        if -1_000_000_000 < value < 1_000_000_000 or _NOT_PERSONAL.search(key):
            return value
        return mask(str(value))
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if depth >= MAX_DEPTH:
        return "..."
    if isinstance(value, dict):
        return {
            mask(str(inner)): _masked(str(inner), part, depth + 1)
            for inner, part in value.items()
            if not _is_dropped(str(inner))
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(key, part, depth + 1) for part in value]
    return mask(str(value))


def _is_dropped(key: str) -> bool:
    return key not in _KEPT and _DROPPED.search(key) is not None


def without_personal_data(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The processor that drops, cuts and hashes whatever could tell who somebody is."""
    return {key: _masked(key, value) for key, value in event.items() if not _is_dropped(key)}


def safe_message(error: BaseException) -> str:
    """What an error says, without the values it may quote.

    Validation and database errors quote what they refuse, which may be anybody's name.
    """
    if isinstance(error, ValidationError):
        places = {".".join(map(str, found["loc"])): found["type"] for found in error.errors()[:5]}
        return f"{error.error_count()} validation errors for {error.title}: {places}"
    if isinstance(error, DBAPIError) and error.orig is not None:
        return safe_message(error.orig.__cause__ or error.orig)
    if isinstance(error, DataError):
        return f"{type(error).__name__} (the value is not shown)"
    if isinstance(error, PostgresError):
        return f"{type(error).__name__}: {error.args[0] if error.args else ''}"
    return (str(error).splitlines() or [""])[0]


def _error_text(error: BaseException, depth: int = 0) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__)[-12:])
    text = f"{frames}{type(error).__name__}: {safe_message(error)}"
    if isinstance(error, BaseExceptionGroup) and depth < 3:
        return "\n".join([text, *(_error_text(part, depth + 1) for part in error.exceptions[:5])])
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and depth < 3:
        return f"{_error_text(cause, depth + 1)}\nwhich led to:\n{text}"
    return text


def _with_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["exception"] = _error_text(error)
    return event


def _with_context(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    now = context.current()
    if now.correlation_id is not None:
        event.setdefault("correlation_id", now.correlation_id)
    if now.causation_id is not None:
        event.setdefault("causation_id", str(now.causation_id))
    if now.actor is not None:
        event.setdefault("actor", now.actor)
    if now.traceparent is not None:
        event.setdefault("trace_id", now.traceparent[3:35])
    return event


def _with_time(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # Logs are in real time, also in sandbox mode: they are compared with other programs' logs.
    moment = datetime.now(UTC)  # noqa: TID251
    event["at"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return event


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class _Routed(logging.Handler):
    """The standard library's records, by the same processors."""

    def __init__(self, emit: Callable[[str, EventDict], None]) -> None:
        super().__init__()
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event: EventDict = {"event": record.getMessage(), "logger": record.name}
            if record.exc_info:
                event["exc_info"] = record.exc_info
            self._emit(record.levelname.lower(), event)
        except Exception:
            self.handleError(record)


class _SaidLately(logging.Filter):
    """Holds back what a library says again and again; the next line tells how often it did.

    While a broker is away Kafka's client says so ten times a second for each connection, and a
    line costs more than the attempt.
    """

    def __init__(self, *libraries: str) -> None:
        super().__init__()
        self._libraries = libraries
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(self._libraries):
            return True
        key = record.name, str(record.msg)
        last, held_back = self._said.get(key, (float("-inf"), 0))
        if record.created - last < AGAIN_SECONDS:
            self._said[key] = last, held_back + 1
            return False
        if held_back:
            record.msg = f"{record.getMessage()} (and {held_back} times more before)"
            record.args = None
        self._said[key] = record.created, 0
        return True


def configure(service: str, level: str = "INFO") -> None:
    """Send every log line of this process as JSON to standard error. Calling it again replaces.

    Args:
        service: Shown as `service` in every line.
        level: Name of the lowest level shown.
    """
    lowest = logging.getLevelNamesMapping()[level.upper()]

    def with_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    processors: list[Callable[[WrappedLogger, str, EventDict], MutableMapping[str, Any]]] = [
        _with_context,
        with_service,
        structlog.processors.add_log_level,
        _with_time,
        _with_exception,
        without_personal_data,
    ]
    structlog.configure(
        processors=[*processors, _as_json],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=_StandardError,
        cache_logger_on_first_use=False,  # so that configuring again reaches every module
    )

    def emit(method: str, event: EventDict) -> None:
        for process in processors:
            event = dict(process(None, method, event))
        sys.stderr.write(_as_json(None, method, event) + "\n")

    root = logging.getLogger()
    for handler in [found for found in root.handlers if isinstance(found, _Routed)]:
        root.removeHandler(handler)
    routed = _Routed(emit)
    routed.addFilter(_SaidLately("aiokafka"))
    root.addHandler(routed)
    root.setLevel(lowest)
    for quiet in ("aiokafka", "sqlalchemy", "httpx", "httpcore", "asyncio", "mail"):
        logging.getLogger(quiet).setLevel(max(lowest, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
        logging.getLogger(name).setLevel(logging.NOTSET)  # ours decides, not an earlier server's
    # Its lines hold query strings, where a phone may stand; the door writes its own access lines.
    logging.getLogger("uvicorn.access").handlers.clear()
    logging.getLogger("uvicorn.access").disabled = True


class _StandardError:
    """Writes to what standard error is now: tests and supervisors may replace it."""

    def __init__(self, *_args: object) -> None:
        pass

    def msg(self, line: str) -> None:
        sys.stderr.write(line + "\n")

    debug = info = warning = warn = error = critical = exception = fatal = log = msg
