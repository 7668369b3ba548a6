"""Examples for the OpenAPI document, made from the schemas themselves.

A model may bring its own (`json_schema_extra={"examples": [...]}`); otherwise one is put together
from names, formats and limits, so that every body has an example and a test can hold each against
its schema.
"""

import re
from typing import Any

Schema = dict[str, Any]

BY_NAME: dict[str, Any] = {
    "phone": "+7 912 345-67-89",
    "phones": ["+7 912 345-67-89"],
    "email": "maria@example.com",
    "name": "Мария Иванова",
    "full_name": "ООО «Ромашка и партнёры»",
    "short_name": "Ромашка",
    "label": "Чемпионы",
    "title": "Поставка",
    "city": "Казань",
    "currency": "RUB",
    "reporting_currency": "RUB",
    "zone": "Europe/Moscow",
    "language": "ru",
    "topic": "Подписание договора",
    "reason": "Клиент попросил",
    "note": "Перезвонить после обеда",
    "outcome": "Договорились",
    "tag": "вебинар",
    "source": "site-form",
    "key": "order-17",
}
BY_FORMAT: dict[str, Any] = {
    "uuid": "0192f0c4-6f8a-7c3e-9d2b-5a1e4c7d8f90",
    "date-time": "2026-03-02T09:00:00Z",
    "date": "2026-03-02",
    "time": "09:00:00",
    "email": "maria@example.com",
    "uri": "https://example.com",
}
BY_PATTERN = ("champions", "RUB", "ru", "17", "1.5", "site-form")
DEEPEST = 8


def example_of(schema: Schema, components: Schema, name: str = "", depth: int = 0) -> Any:
    """A value that the schema accepts.

    Args:
        components: The document's `components.schemas`, for references.
        name: The property's name, which often says what a text is.
    """
    if "$ref" in schema:
        target = components[schema["$ref"].rsplit("/", 1)[1]]
        return example_of(target, components, name, depth + 1)
    for given in ("example", "const"):
        if given in schema:
            return schema[given]
    if schema.get("default") is not None:
        return schema["default"]
    for several in ("examples", "enum"):
        if schema.get(several):
            return schema[several][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            real = [part for part in schema[choice] if part.get("type") != "null"]
            return example_of(real[0], components, name, depth) if real else None
    return _by_type(schema, components, name, depth)


def _by_type(schema: Schema, components: Schema, name: str, depth: int) -> Any:
    kind = schema.get("type")
    if kind == "object":
        return _object(schema, components, depth)
    if kind == "array":
        return _array(schema, components, name, depth)
    if kind in ("integer", "number"):
        least: float = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        return max(1, least)
    if kind == "string":
        return _text(schema, name)
    return True if kind == "boolean" else {}


def _object(schema: Schema, components: Schema, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = set(schema.get("required", []))
    shown = [
        name
        for name, part in properties.items()
        if name in required or (depth <= DEEPEST and name in BY_NAME and _fits(part, name))
    ]
    return {name: example_of(properties[name], components, name, depth + 1) for name in shown}


def _array(schema: Schema, components: Schema, name: str, depth: int) -> list[Any]:
    if "prefixItems" in schema:
        return [example_of(part, components, name, depth + 1) for part in schema["prefixItems"]]
    singular = name.removesuffix("s")
    item = example_of(schema.get("items", {}), components, singular, depth + 1)
    return [item] * max(1, schema.get("minItems", 1))


def _text(schema: Schema, name: str) -> Any:
    if schema.get("format") in BY_FORMAT:
        return BY_FORMAT[schema["format"]]
    known = BY_NAME.get(name)
    if isinstance(known, str) and "pattern" not in schema:
        return known
    if "pattern" in schema:
        fitting = (text for text in BY_PATTERN if re.search(schema["pattern"], text))
        return next(fitting, "текст")
    return "текст"


def _fits(part: Schema, name: str) -> bool:
    """Whether the sample of this name is of the property's own kind."""
    kinds = {p.get("type") for p in (part, *part.get("anyOf", []))}
    return ("array" if isinstance(BY_NAME[name], list) else "string") in kinds


def add_examples(document: Schema) -> None:
    """Give every JSON request body and successful answer of a document an example."""
    components = document.get("components", {}).get("schemas", {})
    for item in document["paths"].values():
        for operation in item.values():
            if not isinstance(operation, dict):
                continue
            bodies = [operation.get("requestBody", {})]
            bodies += [r for code, r in operation["responses"].items() if code < "300"]
            for body in bodies:
                content = body.get("content", {}).get("application/json")
                if content and "schema" in content and not {"example", "examples"} & set(content):
                    content["example"] = example_of(content["schema"], components)
