"""The OpenAPI document and the page that shows it.

Every operation lists every problem that it can answer. The page needs nothing from the internet:
Swagger UI comes from a pip package. That one reads OpenAPI 3.0 only, so it is given a 3.0 reading
of the document; `/openapi.json` itself is 3.1.
"""

from collections.abc import Iterator
from typing import Any

import orjson
import swagger_ui_bundle
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from libs.shared import idempotency, problems
from libs.shared.auth import (
    IssuerAway,
    Requirement,
    RoleMissing,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
)
from libs.shared.errors import DomainError, PreconditionFailed, PreconditionRequired
from libs.shared.examples import add_examples
from libs.shared.pagination import CursorInvalid
from libs.shared.routes import (
    UNSAFE,
    IfMatchMalformed,
    TransactionalRoute,
    depends_on,
    expected_version,
)

ASSETS = "/docs/assets"

_PROBLEM = {
    "title": "Problem",
    "description": "RFC 9457 problem document.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "In Russian if Accept-Language prefers it."},
        "code": {"type": "string", "description": "Stable; switch on this."},
        "instance": {"type": "string", "description": "Path of the request."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "pointer": {"type": "string", "description": "JSON Pointer (RFC 6901)."},
                    "in": {"type": "string", "description": "body, query, path or header."},
                    "detail": {"type": "string"},
                    "ru": {"type": "string"},
                    "code": {"type": "string"},
                },
            },
        },
    },
    "additionalProperties": True,
}

_KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same request gets the same answer and one effect.",
    "schema": {"type": "string", "minLength": 1, "maxLength": idempotency.MAX_KEY},
}


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description.replace("*", r"\*"),  # it is read as Markdown
            routes=app.routes,
            tags=app.openapi_tags,
        )
        for context in iter_route_contexts(app.routes):
            route = context.original_route
            if isinstance(route, APIRoute) and route.include_in_schema and context.path_format:
                for method in context.methods or ():
                    operation = made["paths"].get(context.path_format, {}).get(method.lower())
                    if operation is not None:
                        _complete(operation, route, method)
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        schemas["Problem"] = _PROBLEM
        _hoist_definitions(made, schemas)
        add_examples(made)
        app.openapi_schema = made
    return app.openapi_schema


def _hoist_definitions(document: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Move the `$defs` of bodies that routes describe themselves to where references point."""
    for item in document["paths"].values():
        for operation in item.values():
            content = operation.get("requestBody", {}).get("content", {})
            for body in content.values():
                for name, definition in body.get("schema", {}).pop("$defs", {}).items():
                    schemas.setdefault(name, definition)


def _complete(operation: dict[str, Any], route: APIRoute, method: str) -> None:
    responses = operation.setdefault("responses", {})
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]
    for error in _common_problems(operation, route, method):
        problems.add_problem(responses, str(error.status), error)
    if _takes_key(route, method):
        needed = depends_on(route, idempotency.demand_key)
        operation.setdefault("parameters", []).append({**_KEY_PARAMETER, "required": needed})
    operation["responses"] = dict(sorted(responses.items()))


def _takes_key(route: APIRoute, method: str) -> bool:
    return (
        method in UNSAFE
        and isinstance(route, TransactionalRoute)
        and any(isinstance(call, Requirement) for call in _calls(route))
    )


def _common_problems(
    operation: dict[str, Any], route: APIRoute, method: str
) -> Iterator[type[DomainError]]:
    requirements = [call for call in _calls(route) if isinstance(call, Requirement)]
    if requirements:
        yield from (TokenMissing, TokenExpired, TokenInvalid, IssuerAway)
    if any(requirement.roles for requirement in requirements):
        yield RoleMissing
    if "requestBody" in operation:
        yield from (problems.JsonMalformed, problems.ContentTypeUnsupported, problems.BodyTooLarge)
    if "requestBody" in operation or operation.get("parameters"):
        yield problems.RequestInvalid
    parameters = operation.get("parameters", ())
    if any(parameter["in"] in ("path", "query") for parameter in parameters):
        yield problems.UrlMalformed
    if any(parameter["name"] == "cursor" for parameter in parameters):
        yield CursorInvalid
    if depends_on(route, expected_version):
        yield from (IfMatchMalformed, PreconditionRequired, PreconditionFailed)
    if _takes_key(route, method):
        yield from (idempotency.KeyMalformed, idempotency.KeyReused, idempotency.RequestInFlight)
        if depends_on(route, idempotency.demand_key):
            yield idempotency.KeyRequired
    yield problems.TemporarilyUnavailable


def _calls(route: APIRoute) -> list[Any]:
    waiting, found = list(route.dependant.dependencies), []
    while waiting:
        dependant = waiting.pop()
        found.append(dependant.call)
        waiting.extend(dependant.dependencies)
    return found


def add_docs(app: FastAPI) -> None:
    """Serve /openapi.json and, from files of our own, /docs."""

    async def document(_request: Request) -> Response:
        return Response(orjson.dumps(app.openapi()), media_type="application/json")

    async def older_document(_request: Request) -> Response:
        body = {**_as_3_0(app.openapi()), "openapi": "3.0.3"}
        return Response(orjson.dumps(body), media_type="application/json")

    async def page(_request: Request) -> Response:
        return get_swagger_ui_html(
            openapi_url="/docs/openapi.json",
            title=app.title,
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS}/favicon-32x32.png",
            swagger_ui_parameters={"tryItOutEnabled": True, "persistAuthorization": True},
        )

    app.add_route("/openapi.json", document, include_in_schema=False)
    app.add_route("/docs", page, include_in_schema=False)
    app.add_route("/docs/openapi.json", older_document, include_in_schema=False)
    files = StaticFiles(directory=str(swagger_ui_bundle.swagger_ui_path))
    app.mount(ASSETS, files, name="docs-assets")


def _as_3_0(node: Any) -> Any:
    """A schema with what OpenAPI 3.1 says differently put in 3.0's words."""
    if isinstance(node, list):
        return [_as_3_0(part) for part in node]
    if not isinstance(node, dict):
        return node
    told = {key: _as_3_0(part) for key, part in node.items()}
    choices = told.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        others = [choice for choice in choices if choice != {"type": "null"}]
        told |= {"nullable": True}
        if len(others) == 1 and "$ref" not in others[0]:
            del told["anyOf"]
            told = {**others[0], **told}
        else:
            told["anyOf"] = others
    if "const" in told:
        told["enum"] = [told.pop("const")]
    if isinstance(told.get("examples"), list):
        told["example"] = next(iter(told.pop("examples")), None)
    for limit, flag in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(told.get(flag), int | float) and not isinstance(told.get(flag), bool):
            told[limit], told[flag] = told[flag], True
    return told
