"""The generated documents are what their standards say, and useful to who reads them."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from libs.shared.contracts import all_events, asyncapi
from tests.contracts.write import SERVICES, openapi

METHODS = {"get", "post", "put", "patch", "delete"}


def operations(service: str) -> list[tuple[str, dict[str, Any]]]:
    paths: dict[str, Any] = openapi(service)["paths"]  # type: ignore[assignment]  # a JSON object
    return [
        (f"{method.upper()} {path}", operation)
        for path, item in paths.items()
        for method, operation in item.items()
        if method in METHODS
    ]


def test_every_event_stands_in_asyncapi_with_a_valid_schema() -> None:
    document = asyncapi()

    assert document["asyncapi"] == "3.0.0"
    messages = document["components"]["messages"]
    assert set(messages) == {f"{e.event_name}.v{e.event_version}" for e in all_events()}
    for message in messages.values():
        Draft202012Validator.check_schema(message["payload"])
        assert message["summary"]


def test_every_reference_of_asyncapi_leads_somewhere() -> None:
    document = asyncapi()
    for reference in _references(document):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


@pytest.mark.parametrize("service", SERVICES)
def test_every_reference_of_openapi_leads_somewhere(service: str) -> None:
    document = openapi(service)
    for reference in _references(document):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for item in node for found in _references(item)]
    if not isinstance(node, dict):
        return []
    here = [node["$ref"]] if "$ref" in node else []
    return here + [found for value in node.values() for found in _references(value)]


@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_is_described_and_lists_its_problems(service: str) -> None:
    for name, operation in operations(service):
        assert operation.get("summary"), name
        problems = [code for code in operation["responses"] if code >= "400"]
        if operation.get("security"):
            assert {"401", "503"} <= set(problems), name
        for code in problems:
            content = operation["responses"][code].get("content", {})
            assert "application/problem+json" in content, f"{name} {code}"


@pytest.mark.parametrize("service", SERVICES)
def test_every_body_and_answer_has_an_example_that_its_schema_accepts(service: str) -> None:
    document = openapi(service)
    checked = 0
    for name, operation in operations(service):
        bodies = [operation.get("requestBody", {})]
        bodies += [r for code, r in operation["responses"].items() if code < "300"]
        for body in bodies:
            content = body.get("content", {}).get("application/json")
            if content is None or not content.get("schema"):
                continue
            schema = {**content["schema"], "components": document["components"]}
            examples = _examples(content)
            assert examples, f"{name} has no example"
            for example in examples:
                problem = next(Draft202012Validator(schema).iter_errors(example), None)
                assert problem is None, f"{name}: {problem}"
                checked += 1
    assert checked > 10


def _examples(content: dict[str, Any]) -> list[Any]:
    if "examples" in content:
        return [example["value"] for example in content["examples"].values()]
    return [content["example"]] if "example" in content else []


@pytest.mark.parametrize("service", SERVICES)
def test_what_may_be_wrong_with_an_address_is_listed(service: str) -> None:
    for name, operation in operations(service):
        parameters = operation.get("parameters", [])
        if any(parameter["in"] in ("path", "query") for parameter in parameters):
            shown = operation["responses"]["400"]["content"]["application/problem+json"]
            assert "url-malformed" in shown["examples"], name
            is_list = any(parameter["name"] == "cursor" for parameter in parameters)
            assert is_list == ("cursor-invalid" in shown["examples"]), name


@pytest.mark.parametrize("service", SERVICES)
def test_event_names_in_a_description_are_not_read_as_emphasis(service: str) -> None:
    info: Any = openapi(service)["info"]
    assert ".*" not in info["description"]
