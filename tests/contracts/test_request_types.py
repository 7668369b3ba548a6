"""Nothing that a caller sends is taken for something else than it is."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from libs.shared.calendars import Calendar
from libs.shared.field_types import CalendarDay, Flag, Instant, WallTime, Zone
from libs.shared.policies import Policy
from libs.shared.request_bodies import Request
from services.scoring.rules import RuleSet
from tests.contracts.write import SERVICES

NUMBERS = {"int", "float", "bool"}
MOMENTS = {"datetime", "date", "time"}
FUNCTIONS = {"function-before", "function-wrap"}
NOT_SCHEMAS = {"metadata", "serialization", "default", "function"}


def _subclasses(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for one in kind.__subclasses__():
        yield one
        yield from _subclasses(one)


def _lax(node: Any, path: str = "", under: str = "") -> Iterator[str]:
    """Where a core schema takes a number for a truth value, or a number for an instant."""
    if isinstance(node, list | tuple):
        for part in node:
            yield from _lax(part, path, under)
    if not isinstance(node, dict):
        return
    kind = node.get("type")
    if kind in NUMBERS and not node.get("strict"):
        yield f"{path}: {kind}"
    if kind in MOMENTS and under not in FUNCTIONS:
        yield f"{path}: {kind}"
    for name, part in node.items():
        if name not in NOT_SCHEMAS:
            yield from _lax(part, f"{path}/{name}", kind if isinstance(kind, str) else "")


def test_every_body_and_policy_takes_values_of_its_own_types_only() -> None:
    for service in SERVICES:
        import_module(f"services.{service}.main")
    bodies: list[type[BaseModel]] = [*_subclasses(Request), *_subclasses(Policy), RuleSet]
    ours = [body for body in bodies if body.__module__.startswith(("libs.", "services."))]
    assert len(ours) > 40

    found = {body.__name__: list(_lax(TypeAdapter(body).core_schema)) for body in ours}

    assert {name: lax for name, lax in found.items() if lax} == {}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Flag, 1),
        (Flag, "true"),
        (Instant, 1_700_000_000),
        (Instant, "1700000000"),
        (Instant, "20260701"),  # would be a day of 1970
        (Instant, "2026-02-31T10:00:00Z"),
        (Instant, "2026-07-01T10:00:00"),
        (Instant, "0000-01-01T00:00:00Z"),
        (Instant, "9999-12-31T23:59:59Z"),
        (CalendarDay, 0),
        (CalendarDay, "2026-02-31"),
        (CalendarDay, "9999-12-31"),
        (WallTime, 32_400),
        (Zone, "localtime"),
        (Zone, "../../etc/passwd"),
        (Calendar, {"special_days": {"0": None}}),
    ],
)
def test_what_only_could_be_read_so_is_refused(kind: Any, value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(value)
