"""Lists in pages, by keyset: a page goes on where the last one ended, whatever was added between.

There are no page numbers and no totals: both make the database count what nobody reads.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Generic, TypeVar

import orjson
from fastapi import Query
from pydantic import BaseModel, TypeAdapter, ValidationError

from libs.shared.errors import DomainError

Item = TypeVar("Item")
Row = TypeVar("Row")
Values = TypeVar("Values")

Limit = Annotated[int, Query(ge=1, le=500, description="How many items a page has at most.")]
CursorText = Annotated[
    str | None, Query(max_length=2000, description="`next_cursor` of the page before.")
]
CHECK_BYTES = 8


class CursorInvalid(DomainError):
    """The cursor is damaged or belongs to a list with other filters; start from the first page."""

    status = 400
    code = "cursor-invalid"
    ru = "Курсор повреждён или выдан для других фильтров; начните с первой страницы."


class Page(BaseModel, Generic[Item]):
    """One page of a list. `next_cursor` is null on the last one."""

    items: list[Item]
    next_cursor: str | None = None


class Cursor:
    """Opaque text that remembers the sort values of a page's last row and the list's filters."""

    @staticmethod
    def encode(values: Sequence[Any], filters: Mapping[str, Any] | None = None) -> str:
        """Text for `next_cursor`.

        Args:
            values: Sort values of the last row, the unique one last; JSON, UUIDs, instants.
            filters: What the list is narrowed by; another list refuses the cursor.
        """
        packed = orjson.dumps(list(values), default=str)  # asyncpg has a UUID class of its own
        return base64.urlsafe_b64encode(_check(packed, filters) + packed).decode().rstrip("=")

    @staticmethod
    def decode(
        text: str | None, shape: type[Values], filters: Mapping[str, Any] | None = None
    ) -> Values | None:
        """The sort values to go on after, None for the first page.

        Args:
            shape: Their types, as in `tuple[datetime, UUID]`.

        Raises:
            CursorInvalid: Damaged, or made with other filters.
        """
        if text is None:
            return None
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            if _check(raw[CHECK_BYTES:], filters) != raw[:CHECK_BYTES]:
                raise CursorInvalid
            return TypeAdapter(shape).validate_json(raw[CHECK_BYTES:])
        except (binascii.Error, ValidationError, ValueError):
            raise CursorInvalid from None


def _check(packed: bytes, filters: Mapping[str, Any] | None) -> bytes:
    told = orjson.dumps(filters or {}, default=str, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(told + b"\n" + packed).digest()[:CHECK_BYTES]


def page_of(
    rows: Sequence[Row],
    *,
    limit: int,
    view: Callable[[Row], Item],
    sort_values: Callable[[Row], Sequence[Any]],
    filters: Mapping[str, Any] | None = None,
) -> Page[Item]:
    """A page out of rows that were selected with `LIMIT limit + 1`."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Page(
        items=[view(row) for row in shown],
        next_cursor=Cursor.encode(sort_values(shown[-1]), filters) if more else None,
    )
