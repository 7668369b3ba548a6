"""What every API has around its routes: ids, traces, health, metrics, documents, the sandbox."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import orjson
import pytest
from fastapi import APIRouter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from libs.shared import telemetry
from libs.shared.http import Request, create_app
from libs.shared.settings import ServiceSettings
from tests.conftest import PLUMBING, FreshDatabase
from tests.shared.demo_api import Demo, running
from tests.shared.issuer import Issuer

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def demo(fresh_database: FreshDatabase) -> AsyncIterator[Demo]:
    async with (
        Issuer().serving() as issuer,
        running(await fresh_database(PLUMBING), issuer) as made,
    ):
        yield made


async def test_ids_are_taken_over_bound_and_given_back(demo: Demo) -> None:
    sent = {"X-Request-Id": "r-1", "X-Correlation-Id": "order/7", "traceparent": TRACE}
    answer = await demo.http.get("/v1/notes/whoami", headers=sent)

    assert (answer.headers["X-Request-Id"], answer.headers["X-Correlation-Id"]) == (
        "r-1",
        "order/7",
    )
    bound = answer.json()
    assert (bound["correlation_id"], bound["traceparent"]) == ("order/7", TRACE)
    assert bound["actor"] == bound["subject"] == "user-1"


@pytest.mark.parametrize("bad", ["", "a b", "a\tb", "x" * 129, '"}', "<script>"])
async def test_insane_ids_are_replaced(demo: Demo, bad: str) -> None:
    sent = {"X-Request-Id": bad, "X-Correlation-Id": bad, "traceparent": bad}
    answer = await demo.http.get("/v1/notes/whoami", headers=sent)

    request_id = answer.headers["X-Request-Id"]
    assert re.fullmatch(r"[0-9a-f-]{36}", request_id)
    assert answer.json()["correlation_id"] == request_id
    assert telemetry.parse(answer.json()["traceparent"]) is not None


async def test_two_requests_never_see_each_others_context(demo: Demo) -> None:
    answers = await asyncio.gather(
        *(
            demo.http.get("/v1/notes/whoami", headers={"X-Correlation-Id": f"c-{number}"})
            for number in range(20)
        )
    )

    assert [answer.json()["correlation_id"] for answer in answers] == [
        f"c-{number}" for number in range(20)
    ]


async def test_a_span_is_recorded_under_its_routes_name(demo: Demo) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    telemetry.use_provider(provider)
    try:
        answer = await demo.http.get("/v1/notes/whoami", headers={"traceparent": TRACE})
        missing = await demo.http.get("/v1/nothing")
    finally:
        telemetry.configure("test", None)

    found, unmatched = spans.get_finished_spans()
    assert (found.name, unmatched.name) == ("GET /v1/notes/whoami", "GET (unmatched)")
    assert found.parent is not None
    assert f"{found.parent.span_id:016x}" == "b7ad6b7169203331"
    inside = telemetry.parse(answer.json()["traceparent"])
    assert inside is not None
    assert inside.span_id == found.context.span_id
    assert (missing.status_code, dict(unmatched.attributes or {})) == (
        404,
        {"http.response.status_code": 404},
    )


async def test_health_and_metrics_need_no_token(demo: Demo) -> None:
    transport = httpx.ASGITransport(app=demo.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://demo") as http:
        alive, ready = await http.get("/livez"), await http.get("/readyz")
        await http.get("/v1/notes/0190f3c2-7d0b-7cc2-9e0a-5b0f6d3c8a11")
        metrics = (await http.get("/metrics")).text

    assert (alive.status_code, ready.status_code) == (200, 200)
    assert (
        'http_requests_total{method="GET",route="/v1/notes/{note_id}",status_class="4xx"}'
        in metrics
    )
    assert "0190f3c2" not in metrics
    assert "http_request_duration_seconds_bucket" in metrics
    assert "event_loop_lag_seconds" in metrics


async def test_a_failed_check_makes_it_unready(fresh_database: FreshDatabase) -> None:
    async def broken() -> bool:
        raise RuntimeError("no")

    async def slow() -> bool:
        await asyncio.Event().wait()
        return True

    settings = ServiceSettings(database_url=await fresh_database(PLUMBING))
    checks = {"broken": broken, "slow": slow}
    app = create_app(settings=settings, title="t", routers=[], ready_checks=checks)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app=app)
        http = await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://t")
        )
        answer = await http.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["checks"] == {"database": "ok", "broken": "failed", "slow": "failed"}


async def test_the_documentation_page_needs_nothing_from_elsewhere(demo: Demo) -> None:
    page = (await demo.http.get("/docs")).text
    linked = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page)

    assert len(linked) == 4
    for address in linked:
        assert address.startswith("/")
        answer = await demo.http.get(address)
        assert (answer.status_code, len(answer.content) > 500) == (200, True)
    assert "http://" not in page
    assert "https://" not in page


async def document(demo: Demo, path: str = "/openapi.json") -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((await demo.http.get(path)).content)
    return found


def codes(operation: dict[str, Any]) -> set[str]:
    return {
        code
        for answer in operation["responses"].values()
        for code in answer.get("content", {})
        .get("application/problem+json", {})
        .get("examples", {})
    }


async def test_every_operation_lists_every_problem_it_can_answer(demo: Demo) -> None:
    made = await document(demo)
    add, change = made["paths"]["/v1/notes"]["post"], made["paths"]["/v1/notes/{note_id}"]["patch"]
    common = {"token-missing", "token-expired", "token-invalid", "token-issuer-away"}
    common |= {"role-missing", "temporarily-unavailable", "request-invalid"}
    body = {"json-malformed", "content-type-unsupported", "body-too-large"}
    keyed = {"idempotency-key-malformed", "idempotency-key-reused", "request-in-flight"}

    assert codes(add) == common | body | keyed | {"note-taken"}
    assert codes(change) == common | body | keyed | {
        "note-unknown",
        "if-match-required",
        "if-match-malformed",
        "etag-stale",
        "url-malformed",
    }
    careful = made["paths"]["/v1/notes/careful"]["post"]
    assert "idempotency-key-required" in codes(careful)
    assert [one["required"] for one in careful["parameters"]] == [True]
    assert "HTTPValidationError" not in made["components"]["schemas"]
    assert made["components"]["schemas"]["Problem"]["required"]
    assert add["security"] == [{"bearer": []}]
    assert "/metrics" not in made["paths"]


async def test_every_problems_example_is_a_whole_problem(demo: Demo) -> None:
    made = await document(demo)
    required = made["components"]["schemas"]["Problem"]["required"]
    seen = 0
    for operations in made["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                content = answer.get("content", {}).get("application/problem+json", {})
                for code, example in content.get("examples", {}).items():
                    seen += 1
                    assert set(required) <= set(example["value"])
                    assert (example["value"]["code"], example["value"]["status"]) == (
                        code,
                        int(status),
                    )
    assert seen > 100


async def test_the_pages_own_document_is_openapi_3_0(demo: Demo) -> None:
    made = await document(demo, "/docs/openapi.json")
    at = made["components"]["schemas"]["AddNote"]["properties"]["at"]

    assert made["openapi"] == "3.0.3"
    assert (at["type"], at["format"], at["nullable"]) == ("string", "date-time", True)
    assert '"null"' not in orjson.dumps(made["components"]["schemas"]).decode()


async def test_without_the_sandbox_there_is_no_clock_to_advance(demo: Demo) -> None:
    read = await demo.http.get("/v1/sandbox/clock")
    advance = await demo.http.post("/v1/sandbox/clock/advance", json={"seconds": 1})

    assert (read.status_code, advance.status_code) == (404, 404)
    assert not [path for path in (await document(demo))["paths"] if "sandbox" in path]


async def test_the_sandboxs_clock_is_advanced_for_all_its_processes(
    fresh_database: FreshDatabase,
) -> None:
    url = await fresh_database(PLUMBING)
    async with (
        Issuer().serving() as issuer,
        running(url, issuer, sandbox=True, sandbox_offset_seconds=-3600) as one,
        running(url, issuer, sandbox=True, sandbox_offset_seconds=-3600) as other,
    ):
        before = other.app.state.clock.now()
        answer = await one.http.post("/v1/sandbox/clock/advance", json={"seconds": 86_400})
        async with asyncio.timeout(5):
            while (other.app.state.clock.now() - before).total_seconds() < 86_400:
                await asyncio.sleep(0.01)
        read = await one.http.get("/v1/sandbox/clock", headers=one.bearer("support"))
        audited = await one.http.get("/v1/audit")

    assert answer.status_code == read.status_code == 200
    assert answer.json()["now"] <= read.json()["now"]
    assert audited.json()["items"][0]["action"] == "clock.advanced"


@pytest.mark.parametrize(
    ("role", "seconds", "status"),
    [
        ("supervisor", 60, 403),
        ("admin", -1, 422),
        ("admin", 315_576_001, 422),
        ("admin", "60", 422),
        ("admin", 0, 200),
    ],
)
async def test_the_clock_goes_forward_only_and_for_admins_only(
    fresh_database: FreshDatabase, role: str, seconds: object, status: int
) -> None:
    async with (
        Issuer().serving() as issuer,
        running(await fresh_database(PLUMBING), issuer, sandbox=True) as demo,
    ):
        answer = await demo.http.post(
            "/v1/sandbox/clock/advance", json={"seconds": seconds}, headers=demo.bearer(role)
        )

    assert answer.status_code == status


async def test_a_browser_is_let_in_from_configured_origins_only(
    fresh_database: FreshDatabase, demo: Demo
) -> None:
    asked = {"Origin": "https://desk.example", "Access-Control-Request-Method": "POST"}
    async with running(
        await fresh_database(PLUMBING), demo.issuer, cors_origins=["https://desk.example"]
    ) as open_demo:
        allowed = await open_demo.http.options("/v1/notes", headers=asked)
        other = await open_demo.http.options(
            "/v1/notes", headers=asked | {"Origin": "https://evil.example"}
        )
    closed = await demo.http.options("/v1/notes", headers=asked)

    assert allowed.headers["Access-Control-Allow-Origin"] == "https://desk.example"
    assert "Access-Control-Allow-Origin" not in other.headers
    assert "Access-Control-Allow-Origin" not in closed.headers


def test_a_plain_route_with_a_body_does_not_start() -> None:
    class Body(Request):
        pass

    plain = APIRouter()

    @plain.post("/v1/loose")
    async def loose(body: Body) -> None:
        """Take a body past the strict reader."""

    settings = ServiceSettings(database_url="postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(TypeError, match="/v1/loose"):
        create_app(settings=settings, title="t", routers=[plain])
