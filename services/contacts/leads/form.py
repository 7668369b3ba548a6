"""Reading a site's form: every site names its fields in its own way, and nothing may be lost.

Known names (policy) fill the lead; `utm_*` become its marks; all else, and a phone or an address
that cannot be read, goes into the note as it came. What holds no way to reach anybody is refused.
"""

import unicodedata
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import orjson

from services.contacts.clients import emails, phones
from services.contacts.leads.intake import Asked
from services.contacts.leads.marks import domain_of
from services.contacts.policies import FormPolicy

MAX_FIELDS = 200
MAX_NOTE = 20_000
SHORT = {"name": 200, "product": 200, "city": 200, "language": 35, "region": 200}


class NotAForm(Exception):
    """The body is not a form with which somebody could be reached."""


def read_form(raw: bytes, *, source: str, names: FormPolicy, region: str) -> Asked:
    """What somebody has asked with a form.

    Args:
        raw: JSON object or urlencoded fields.
        region: Country of phone numbers that name none.

    Raises:
        NotAForm: Neither, or neither a phone nor an e-mail is in it.
    """
    asked = Asked(source=source, channel="form")
    meanings = _meanings(names)
    notes: list[str] = []
    reachable = False
    for label, value in _fields(raw):
        key = _plain(label)
        meaning = meanings.get(key, "")
        if meaning in ("phone", "email"):
            reachable = True
            if not _reach(asked, meaning, value, region):
                notes.append(f"{label}: {value}")
        elif key.startswith("utm"):
            asked.utm[label[:100]] = value[:500]
        elif meaning == "note":
            notes.append(value)
        elif meaning == "site":
            asked.domain = asked.domain or domain_of(value)
            notes.append(f"{label}: {value}")  # the page as well as the site may matter
        elif not (meaning and _fill(asked, meaning, value)):
            notes.append(f"{label}: {value}")
    if not reachable:
        raise NotAForm("neither a phone nor an e-mail is in it")
    asked.note = "\n".join(notes)[:MAX_NOTE] or None
    return asked


def _reach(asked: Asked, meaning: str, value: str, region: str) -> bool:
    """Take over a phone or an e-mail; False when it cannot be read or there is one already."""
    try:
        if meaning == "phone":
            numbers = phones.numbers_in(value, region)
            asked.phones += [number for number in numbers if number not in asked.phones]
            return True
        address = emails.normalise(value)
    except (phones.PhoneRefused, emails.EmailRefused):
        return False
    asked.email = asked.email or address
    return asked.email == address


def _fill(asked: Asked, meaning: str, value: str) -> bool:
    """Take over a short text; False when it is too long or there is one already."""
    if getattr(asked, meaning) is not None or len(value) > SHORT[meaning]:
        return False
    setattr(asked, meaning, value)
    return True


def _meanings(names: FormPolicy) -> dict[str, str]:
    return {
        _plain(label): meaning.removesuffix("_fields")
        for meaning, labels in names.model_dump().items()
        for label in labels
    }


def _plain(label: str) -> str:
    folded = unicodedata.normalize("NFKC", label).casefold()
    return "".join(filter(str.isalnum, folded))


def _fields(raw: bytes) -> Iterator[tuple[str, str]]:
    for number, (label, value) in enumerate(_pairs(raw)):
        if number == MAX_FIELDS:
            raise NotAForm("it has too many fields")
        text = value.replace("\0", "").strip()
        if text:
            yield label.replace("\0", "").strip(), text


def _pairs(raw: bytes) -> Iterator[tuple[str, str]]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        yield from _urlencoded(raw)
        return
    if not isinstance(body, dict):
        raise NotAForm("it is not an object")
    yield from _flat(body)


def _urlencoded(raw: bytes) -> Iterator[tuple[str, str]]:
    try:
        pairs = parse_qsl(raw.decode(), strict_parsing=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise NotAForm("it is neither JSON nor urlencoded") from None
    yield from pairs


def _flat(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields of an object and of those in it; what is deeper is kept as text."""
    for label, value in body.items():
        if isinstance(value, dict):
            for inner, text in value.items():
                yield inner, _text(text)
        else:
            yield label, _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    try:
        return value if isinstance(value, str) else orjson.dumps(value).decode()
    except TypeError:  # orjson reads 1024 levels and writes 254
        raise NotAForm("it is nested too deeply") from None
