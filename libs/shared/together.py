"""Several statements in one round trip and one transaction, each by its own kept plan.

A batch of few events is three statements between BEGIN and COMMIT. Sent one after the other, half
of its time goes by on the way. PostgreSQL takes statements that stand behind one another in one
message for one transaction; those that are prepared once for a session are not planned again.
"""

from collections.abc import Sequence
from datetime import date, datetime
from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID

from libs.shared.arrays import array_text
from libs.shared.database import Connection


class Statement(NamedTuple):
    """SQL with `$1` and the values for it."""

    sql: str
    values: Sequence[object]


async def execute_together(connection: Connection, *statements: Statement) -> None:
    """Run the statements in their order; all of them stay, or none.

    What the statements answer is not to be had: one that must not stay has to fail.

    Args:
        connection: Of a service's pool, in no transaction.
    """
    names = [await _prepared(connection, statement.sql) for statement in statements]
    await connection.execute(
        ";".join(
            f"EXECUTE {name}({','.join(map(_literal, statement.values))})"
            for name, statement in zip(names, statements, strict=True)
        )
    )


async def _prepared(connection: Connection, sql: str) -> str:
    known: dict[str, str] = connection.prepared  # type: ignore[union-attr]  # the pool's own have it
    name = known.get(sql)
    if name is None:
        # By its text: a session that a proxy has lent to others has no other one of this name.
        name = f"together_{blake2b(sql.encode(), digest_size=16).hexdigest()}"
        await connection.execute(f"PREPARE {name} AS {sql}")
        known[sql] = name
    return name


def _literal(value: object) -> str:
    """A value as it stands in SQL; PostgreSQL reads the text as whatever the parameter is.

    Raises:
        ValueError: It has a NUL, at which the message would end.
    """
    match value:
        case None:
            return "NULL"
        case bool() | int() | float():
            return str(value)
        case list() | tuple():
            return _literal(array_text(value))
        case str() | UUID() | date() | datetime():
            text = str(value)
            if "\0" in text:
                raise ValueError("PostgreSQL knows no text with a NUL")
            return "'" + text.replace("'", "''") + "'"
    raise TypeError(f"{type(value).__name__} has no literal")
