"""PostgreSQL's arrays as text.

asyncpg asks each element of an array twice whether it is an array itself, which takes ten times as
long as sending it does: a tenth of a batch's time. Text is spared that. Where the statement tells
PostgreSQL to read it in the FROM clause or in a subselect of its own, it is read once.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from uuid import UUID

import orjson


def array_text(values: Sequence[int | str | date | datetime | None]) -> str:
    """The text of an array; `$1::text::int[]`.

    Args:
        values: All of one type. Instants become text in UTC, as `2026-11-28T12:00:00Z`.
    """
    text = orjson.dumps(values, option=orjson.OPT_UTC_Z)[1:-1].decode()
    if "\\" in text:  # PostgreSQL knows no \n and no \u000a
        text = ",".join(map(_quoted, values))
    return f"{{{text}}}"


def _quoted(value: object) -> str:
    if value is None:
        return "null"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def ids_text(ids: Iterable[UUID]) -> str:
    """The same of ids; `$1::text::uuid[]`."""
    return "{" + ",".join(map(str, ids)) + "}"
