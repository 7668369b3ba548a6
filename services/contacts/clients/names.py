"""What clients are called.

A person and a sole proprietor have a name; a legal entity has two, the full one of its papers and
the short one that everybody uses.
"""

import unicodedata
from typing import Literal

from libs.shared.errors import Invalid

Kind = Literal["person", "sole_proprietor", "legal_entity"]

LEGAL_ENTITY = "legal_entity"


class NameMissing(Invalid):
    """A person or sole proprietor needs `name`; a legal entity `full_name` and `short_name`."""

    code = "name-missing"
    ru = "Физлицу и ИП нужно name; юрлицу нужны full_name и short_name."


class NameNotExpected(Invalid):
    """This kind of client has no such name."""

    code = "name-not-expected"
    ru = "У клиента этого типа такого имени нет."


def names_of(
    kind: str, name: str | None, full_name: str | None, short_name: str | None
) -> tuple[str, str | None]:
    """The stored full and short name of a client.

    Raises:
        NameMissing: One that this kind needs is not there.
        NameNotExpected: One that this kind does not have is there.
    """
    if kind == LEGAL_ENTITY:
        if name is not None:
            raise NameNotExpected(pointer="/name")
        if full_name is None or short_name is None:
            raise NameMissing(pointer="/full_name" if full_name is None else "/short_name")
        return full_name, short_name
    if full_name is not None or short_name is not None:
        raise NameNotExpected(pointer="/short_name" if full_name is None else "/full_name")
    if name is None:
        raise NameMissing(pointer="/name")
    return name, None


def name_key(full_name: str, short_name: str | None = None) -> str:
    """What names are searched by: case, the dots of ё, kinds of spaces and of Unicode are nothing.

    Macs send й and ё as a letter and a mark; who searches elsewhere would not find such a name.
    """
    both = full_name if short_name is None else f"{full_name} {short_name}"
    plain = unicodedata.normalize("NFKC", both).casefold().replace("ё", "е")
    return " ".join(plain.split())
