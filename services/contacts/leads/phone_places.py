"""Where a phone is from: the country, and the region that its code belongs to.

Leads are routed by it; the number itself goes no further than the card. A mobile number has a
country only: its code says nothing about where somebody lives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import phonenumbers
from phonenumbers import PhoneNumberType


@dataclass(frozen=True, slots=True)
class Place:
    """ISO 3166 country and a region in Russian, as far as they are known."""

    country: str | None = None
    region: str | None = None


_MOBILE = frozenset({PhoneNumberType.MOBILE, PhoneNumberType.PAGER})


def place_of(numbers: Sequence[str]) -> Place:
    """Of the first of somebody's numbers (E.164), the one they are called at."""
    return _place(numbers[0]) if numbers else Place()


@lru_cache(maxsize=10_000)
def _place(number: str) -> Place:
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return Place()
    country = phonenumbers.region_code_for_number(parsed)
    if phonenumbers.number_type(parsed) in _MOBILE:
        return Place(country)
    # Imported here: the table of all the world's codes takes 0.4 s and 100 MB, which a process
    # that meets no such number is spared.
    from phonenumbers import geocoder

    region = geocoder.description_for_number(parsed, "ru")
    whole_country = geocoder.country_name_for_number(parsed, "ru")
    return Place(country, region if region and region != whole_country else None)
