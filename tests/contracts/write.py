"""Writes the contract documents: `make contracts`. What it writes is what the test compares."""

import importlib
from collections.abc import Callable, Iterator
from functools import partial
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


def documents() -> dict[Path, Callable[[], str]]:
    """The place of each generated document, and what makes it."""
    made: dict[Path, Callable[[], str]] = {}
    for event in all_events():
        name = f"{event.event_name}.v{event.event_version}.json"
        made[GOLDEN / name] = partial(_golden, event)
    made[ROOT / "docs" / "asyncapi.json"] = lambda: pretty(asyncapi())
    made[ROOT / "docs" / "events.md"] = lambda: event_table(heard())
    for service in SERVICES:
        made[ROOT / "docs" / "openapi" / f"{service}.json"] = partial(_openapi, service)
    return made


def _golden(event: type[Event]) -> str:
    return pretty(golden(event))


def _openapi(service: str) -> str:
    return pretty(openapi(service))


if __name__ == "__main__":
    for path, make in documents().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(), encoding="utf-8")
