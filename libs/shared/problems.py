"""Everything that goes wrong in a request, told the same way: RFC 9457 problem documents.

A problem has a stable `code` to switch on and a `detail` to read, in Russian where the caller
prefers it. Nothing the caller sent is repeated in it, and nothing of our insides is shown.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import asyncpg
import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Scope

from libs.shared.database import is_transient
from libs.shared.errors import Conflict, DomainError, Invalid

TYPE_PREFIX = "https://baza.example/problems/"
MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 50  # of one request; a batch of thousands may have tens of thousands
MAX_POINTER = 200
RETRY_AFTER_SECONDS = 2


class RequestInvalid(Invalid):
    """The request does not have the expected form; `errors` says where and why."""

    code = "request-invalid"
    ru = "Запрос заполнен неверно; в `errors` указано, где и почему."


class ValueUnprocessable(Invalid):
    """A value is outside of what can be stored."""

    code = "value-unprocessable"
    ru = "Значение выходит за пределы того, что можно сохранить."


class JsonMalformed(DomainError):
    """The body is not valid JSON."""

    status = 400
    code = "json-malformed"
    ru = "Тело запроса не является корректным JSON."


class UrlMalformed(DomainError):
    """The address contains a NUL character."""

    status = 400
    code = "url-malformed"
    ru = "В адресе запроса недопустимый символ NUL."


class RouteUnknown(DomainError):
    """There is nothing at this address."""

    status = 404
    code = "route-unknown"
    ru = "По этому адресу ничего нет."


class MethodNotAllowed(DomainError):
    """This address does not take this method."""

    status = 405
    code = "method-not-allowed"
    ru = "Этот адрес не поддерживает такой метод."


class BodyTooLarge(DomainError):
    """The body is larger than allowed; `max_bytes` says how large it may be."""

    status = 413
    code = "body-too-large"
    ru = "Тело запроса больше допустимого; предел указан в `max_bytes`."


class ContentTypeUnsupported(DomainError):
    """Send the body as application/json."""

    status = 415
    code = "content-type-unsupported"
    ru = "Передайте тело запроса как application/json."


class WriteConflict(Conflict):
    """It conflicts with something that exists already or was written at the same time."""

    code = "write-conflict"
    ru = "Противоречит уже существующей или одновременно записанной записи."


class InternalError(DomainError):
    """Something is wrong on our side; tell us the request_id."""

    status = 500
    code = "internal-error"
    ru = "Ошибка на нашей стороне; сообщите нам request_id."


class TemporarilyUnavailable(DomainError):
    """This cannot be done right now; try the same again in a moment."""

    status = 503
    code = "temporarily-unavailable"
    ru = "Сейчас это выполнить нельзя; повторите через мгновение."


class HttpProblem(DomainError):
    """The request cannot be answered."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status, self.code = status, f"http-{status}"  # type: ignore[misc]  # one class for all


class BodyRefused(HTTPException):
    """Carries a problem found while the body is read past FastAPI, which catches all else there."""

    def __init__(self, problem: DomainError) -> None:
        super().__init__(problem.status)
        self.problem = problem


def problem_of(error: BaseException) -> DomainError:
    """The problem that any exception is answered with; `InternalError` for the unforeseen."""
    if isinstance(error, DomainError):
        return error
    if isinstance(error, RequestValidationError):
        return _validation_problem(error)
    if isinstance(error, HTTPException):
        return _http_problem(error)
    if is_transient(error):
        return TemporarilyUnavailable()
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    if isinstance(error, asyncpg.DataError):
        return ValueUnprocessable()
    if isinstance(
        error,
        asyncpg.UniqueViolationError
        | asyncpg.ForeignKeyViolationError
        | asyncpg.ExclusionViolationError,
    ):
        return WriteConflict()
    return InternalError()


def _http_problem(error: HTTPException) -> DomainError:
    if isinstance(error, BodyRefused):
        return error.problem
    if error.status_code == 400:  # FastAPI's word for a body that it could not parse
        return JsonMalformed()
    if error.status_code == 404:
        return RouteUnknown()
    if error.status_code == 405:
        return MethodNotAllowed()
    return HttpProblem(error.status_code)


_RUSSIAN = {
    "missing": "Обязательное поле.",
    "extra_forbidden": "Такого поля нет.",
    "string_too_short": "Слишком короткое значение.",
    "string_too_long": "Слишком длинное значение.",
    "string_type": "Нужна строка.",
    "string_pattern_mismatch": "Значение не соответствует формату.",
    "int_type": "Нужно целое число.",
    "int_parsing": "Нужно целое число.",
    "int_from_float": "Нужно целое число.",
    "uuid_parsing": "Нужен UUID.",
    "enum": "Недопустимое значение из списка.",
    "literal_error": "Недопустимое значение из списка.",
    "greater_than_equal": "Слишком маленькое значение.",
    "less_than_equal": "Слишком большое значение.",
    "datetime_from_date_parsing": "Нужны дата и время по ISO 8601.",
    "datetime_parsing": "Нужны дата и время по ISO 8601.",
    "timezone_aware": "Нужен часовой пояс.",
    "date_from_datetime_parsing": "Нужна дата по ISO 8601.",
    "list_type": "Нужен список.",
    "too_long": "Слишком много элементов.",
    "too_short": "Слишком мало элементов.",
}
# What pydantic says about these quotes the value.
_UNQUOTED = {
    "union_tag_invalid": "None of the possible kinds",
    "uuid_parsing": "Input should be a valid UUID",
}


def _validation_problem(error: RequestValidationError) -> DomainError:
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return JsonMalformed()
    return RequestInvalid(
        errors=[_field_error(one) for one in found[:MAX_ERRORS]], errors_total=len(found)
    )


def _field_error(one: Mapping[str, Any]) -> dict[str, Any]:
    where, *rest = one["loc"]
    code = str(one["type"])
    return {
        "pointer": pointer(rest),
        "in": where,
        "detail": _UNQUOTED.get(code, one["msg"]),
        "ru": _RUSSIAN.get(code, "Недопустимое значение."),
        "code": code.replace("_", "-"),
    }


def pointer(parts: Iterable[str | int]) -> str:
    """JSON Pointer (RFC 6901) to a place in the body; "" is the whole of it."""
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in parts)
    return "".join(f"/{part}" for part in escaped)[:MAX_POINTER]


def document(error: DomainError, scope: Scope) -> dict[str, Any]:
    """The problem document of an error, as told to this caller."""
    return {
        "type": TYPE_PREFIX + error.code,
        "title": error.summary(),
        "status": error.status,
        "detail": error.ru if _prefers_russian(scope) else error.detail,
        "code": error.code,
        "instance": scope["path"],
        "request_id": scope.get("state", {}).get("request_id"),
        **error.members,
    }


def _prefers_russian(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"accept-language":
            return _language_weight(value, b"ru") > _language_weight(value, b"en")
    return False


def _language_weight(header: bytes, language: bytes) -> float:
    best = 0.0
    for choice in header.lower().split(b",")[:20]:
        tag, _, parameters = choice.partition(b";")
        if tag.strip().partition(b"-")[0] == language:
            _, _, weight = parameters.partition(b"q=")
            try:
                best = max(best, float(weight) if weight else 1.0)
            except ValueError:
                continue
    return best


def response(
    error: DomainError, scope: Scope, headers: Mapping[str, str] | None = None
) -> Response:
    """The HTTP answer that tells a problem."""
    all_headers = dict(headers or {})
    if error.status == 401:
        told = "" if error.code == "token-missing" else ', error="invalid_token"'
        all_headers["WWW-Authenticate"] = f'Bearer realm="baza"{told}'
    if error.status == 503:
        all_headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    body = orjson.dumps(document(error, scope), default=str)
    return Response(body, error.status, all_headers, media_type=MEDIA_TYPE)


async def _answer(request: Request, error: Exception) -> Response:
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if isinstance(error, HTTPException) and error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods_here(request)))
    return response(problem_of(error), request.scope, headers)


def _methods_here(request: Request) -> set[str]:
    """Every method that the path takes; the router itself stops at the first route of the path."""
    found: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.path_format and compile_path(route.path_format)[0].match(request.scope["path"]):
            found |= route.methods or set()
    return found


def answer_with_problems(app: FastAPI) -> None:
    """Answer every foreseen exception of the app with its problem; the door does the others."""
    for kind in (DomainError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _answer)


def example(error: type[DomainError]) -> dict[str, Any]:
    """The problem document as API documentation shows it."""
    return {
        "type": TYPE_PREFIX + error.code,
        "title": error.summary(),
        "status": error.status,
        "detail": error.summary(),
        "code": error.code,
        "instance": "/v1/...",
        "request_id": "0190f3c2-7d0b-7cc2-9e0a-5b0f6d3c8a11",
    }


def problems(*errors: type[DomainError]) -> dict[int | str, dict[str, Any]]:
    """What a route can answer besides success; give it as the route's `responses`."""
    responses: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        add_problem(responses, error.status, error)
    return responses


def add_problem(
    responses: dict[Any, dict[str, Any]], status: int | str, error: type[DomainError]
) -> None:
    """Add one problem to the `responses` of an OpenAPI operation."""
    entry = responses.setdefault(status, {"description": error.summary()})
    content = entry.setdefault("content", {}).setdefault(
        MEDIA_TYPE, {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
    )
    content["examples"].setdefault(
        error.code, {"summary": error.summary(), "value": example(error)}
    )
    told = [shown["summary"] for shown in content["examples"].values()]
    entry["description"] = " · ".join(told)
