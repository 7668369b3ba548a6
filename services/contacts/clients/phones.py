"""Phone numbers: any spelling in, E.164 stored, one spelling shown.

A number is read as people write it: with 8 or +7, brackets, dots, full-width digits, Excel's ".0"
and apostrophe, an extension at the end, two numbers in one cell. What cannot be read for certain is
refused with a reason; a wrong number is worse than none. An extension is dropped: E.164 has none.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

import phonenumbers
from phonenumbers.phonemetadata import PhoneMetadata

from libs.shared.errors import Invalid

MIN_DIGITS, MAX_DIGITS = 7, 15
MAX_CHARS = 200

_EXCEL_FLOAT = re.compile(r"(\+?\d{7,15})\.0")
_EXTENSION = re.compile(
    r"[\s,;.]*(?:доб(?:авочный)?|вн(?:утр)?|ext(?:ension)?|x|#)[\s.:]*\d{1,7}[\s.)]*$",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"[,;/|\n]")
_SEPARATORS = re.compile(r"[\s().\-\u2010-\u2015\u2212\u00ad\u200b]+")
_PLAIN = re.compile(r"\+?[0-9]+")
_RUSSIAN = re.compile(r"(?:\+?7|8)?(9[0-9]{9})")


def _mobile_numbers_of_russia() -> re.Pattern[str]:
    """The fast path takes what phonenumbers itself holds for a mobile number, and nothing more."""
    metadata = PhoneMetadata.metadata_for_region("RU")
    pattern = metadata.mobile.national_number_pattern if metadata and metadata.mobile else None
    return re.compile(pattern or r"(?!)")


_RUSSIAN_MOBILE = _mobile_numbers_of_russia()


class PhoneRefused(Invalid):
    """This is not a phone number."""

    code = "phone-refused"


class PhoneUnreadable(PhoneRefused):
    """It cannot be read as a phone number: something other than digits and separators is in it."""

    code = "phone-unreadable"
    ru = "Не похоже на номер телефона: есть лишние символы."


class PhoneTooShort(PhoneRefused):
    """The phone number has too few digits."""

    code = "phone-too-short"
    ru = "В номере телефона не хватает цифр."


class PhoneTooLong(PhoneRefused):
    """The phone number has too many digits."""

    code = "phone-too-long"
    ru = "В номере телефона слишком много цифр."


class PhoneImpossible(PhoneRefused):
    """There is no such phone number in any country's plan."""

    code = "phone-impossible"
    ru = "Такого номера телефона не бывает."


REFUSALS = (PhoneUnreadable, PhoneTooShort, PhoneTooLong, PhoneImpossible)


class PhoneRepeated(PhoneRefused):
    """The same phone number is given twice."""

    code = "phone-repeated"
    ru = "Один и тот же номер телефона указан дважды."


def numbers_in(text: str, region: str = "RU") -> list[str]:
    """Every number of a cell, in E.164; usually one.

    Raises:
        PhoneRefused: Any of them cannot be read.
    """
    return [normalise(part, region) for part in split(text)]


def split(text: str) -> list[str]:
    """A cell cut into its numbers; what might be a short form of two ("-67/68") is left whole."""
    if not _SEVERAL.search(text):
        return [text]
    parts: list[str] = []
    for part in _SEVERAL.split(text):
        if parts and _EXTENSION.fullmatch(part):
            parts[-1] += part
        elif part.strip():
            parts.append(part)
    if len(parts) > 1 and any(sum(map(str.isdecimal, part)) < MIN_DIGITS for part in parts):
        return [text]
    return parts or [text]


@lru_cache(maxsize=50_000)
def normalise(text: str, region: str = "RU") -> str:
    """One number in E.164, as in `+79123456789`.

    Args:
        region: ISO 3166 country of numbers that name none.

    Raises:
        PhoneRefused: It cannot be read, or no country has such numbers.
    """
    plain = _digits_of(text)
    if region == "RU" and (number := _mobile_of_russia(plain)):
        return number
    return by_phonenumbers(plain, region)


def _mobile_of_russia(plain: str) -> str | None:
    found = _RUSSIAN.fullmatch(plain)
    return "+7" + found[1] if found and _RUSSIAN_MOBILE.fullmatch(found[1]) else None


def by_phonenumbers(plain: str, region: str) -> str:
    """E.164 of bare digits with or without a plus, by the numbering plans of all countries.

    Raises:
        PhoneImpossible: No country has such numbers.
    """
    try:
        number = phonenumbers.parse(plain, region)
    except phonenumbers.NumberParseException:
        raise PhoneImpossible from None
    if not phonenumbers.is_valid_number(number):
        raise PhoneImpossible
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _digits_of(text: str) -> str:
    """Digits, with the leading plus if there is one."""
    if len(text) > MAX_CHARS:
        raise PhoneTooLong
    plain = unicodedata.normalize("NFKC", text).strip().lstrip("'`\u2019")
    if excel := _EXCEL_FLOAT.fullmatch(plain.strip()):
        plain = excel[1]
    plain = _SEPARATORS.sub("", _EXTENSION.sub("", plain))
    if not _PLAIN.fullmatch(plain):
        raise PhoneUnreadable
    digits = len(plain.lstrip("+"))
    if digits < MIN_DIGITS:
        raise PhoneTooShort
    if digits > MAX_DIGITS:
        raise PhoneTooLong
    return plain


def all_numbers(texts: Sequence[str], region: str, pointer: str = "/phones") -> list[str]:
    """The numbers of a card, in their order.

    Raises:
        PhoneRefused: One cannot be read or stands there twice; `errors` says which.
    """
    found: list[str] = []
    for index, text in enumerate(texts):
        try:
            numbers = numbers_in(text, region)
        except PhoneRefused as error:
            raise type(error)(pointer=f"{pointer}/{index}") from None
        for number in numbers:
            if number in found:
                raise PhoneRepeated(pointer=f"{pointer}/{index}")
            found.append(number)
    return found


@lru_cache(maxsize=50_000)
def display(number: str) -> str:
    """How a number in E.164 is shown: +7 (912) 345-67-89."""
    if number.startswith("+7") and len(number) == 12:
        return f"+7 ({number[2:5]}) {number[5:8]}-{number[8:10]}-{number[10:]}"
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return number
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.INTERNATIONAL)


def shown(numbers: Iterable[str]) -> list[dict[str, str]]:
    """Numbers as answers carry them."""
    return [{"number": number, "display": display(number)} for number in numbers]
