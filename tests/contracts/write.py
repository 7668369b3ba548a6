"""Writes the contract documents: `make contracts`. What it writes is what the test compares."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import orjson

from libs.shared.contracts import all_events, asyncapi, event_table, golden
from libs.shared.events import Event

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "events"
SERVICES = ("contacts", "scoring", "routing", "notifications")


def pretty(document: object) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n"


def heard() -> Iterator[tuple[str, type[Event]]]:
    """Which service subscribes to which event."""
    for service in SERVICES:
        module = importlib.import_module(f"services.{service}.subscriptions")
        for subscription in module.SUBSCRIPTIONS:
            yield service, subscription.event_type


def openapi(service: str) -> dict[str, object]:
    """The OpenAPI document of a service."""
    main = importlib.import_module(f"services.{service}.main")
    settings = importlib.import_module(f"services.{service}.settings")
    cls = getattr(settings, f"{service.capitalize()}Settings")
    app = main.build(cls(database_url="postgresql://u:p@localhost/none"))
    document: dict[str, object] = app.openapi()
    return document


def documents() -> Iterator[tuple[Path, str]]:
    """Each generated document with its place."""
    for event in all_events():
        name = f"{event.event_name}.v{event.event_version}.json"
        yield GOLDEN / name, pretty(golden(event))
    yield ROOT / "docs" / "asyncapi.json", pretty(asyncapi())
    yield ROOT / "docs" / "events.md", event_table(heard())
    for service in SERVICES:
        yield ROOT / "docs" / "openapi" / f"{service}.json", pretty(openapi(service))


if __name__ == "__main__":
    for path, text in documents():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
