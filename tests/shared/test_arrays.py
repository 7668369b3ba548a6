"""Arrays that travel as text arrive as they were."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.shared.arrays import array_text
from libs.shared.database import Database

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)


@given(values=st.lists(st.none() | TEXTS))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_texts(plumbing: Database, values: list[str | None]) -> None:
    assert await arrived(plumbing, values, "text") == values


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", ['say "no"', "a\\b", "[x]", "{y}", "null", "", None, "a,b", "строка\n", " "]),
        ("bigint", [0, -1, None, 2**63 - 1]),
        ("boolean", [True, False, None]),
        ("date", [date(1, 1, 1), date(2026, 11, 28), None]),
        (
            "timestamptz",
            [datetime(2026, 11, 28, 9, 0, 0, 123456, UTC), datetime(1970, 1, 1, tzinfo=UTC), None],
        ),
        ("int", []),
    ],
)
async def test_arrays_of_each_type(plumbing: Database, kind: str, values: list[Any]) -> None:
    assert await arrived(plumbing, values, kind) == values


async def arrived(database: Database, values: list[Any], kind: str) -> list[Any]:
    found: list[Any] = await database.pool.fetchval(
        f"SELECT $1::text::{kind}[]", array_text(values)
    )
    return found
