"""The marks of an advertising campaign and the site that a lead came from, as rules compare them.

Only the five usual marks leave this service: whatever else stands in a form may be personal.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

USUAL = ("source", "medium", "campaign", "term", "content")
MAX_CHARS = 200
MAX_DOMAIN = 253


def marks_of(utm: Mapping[str, str]) -> dict[str, str]:
    """`utm_source` and its like under their short names."""
    told = {label.casefold().replace("-", "_").removeprefix("utm_"): v for label, v in utm.items()}
    return {name: told[name].strip()[:MAX_CHARS] for name in USUAL if told.get(name, "").strip()}


def domain_of(site: str) -> str | None:
    """The domain of an address or a bare domain, lower case; None where there is none."""
    plain = site.strip().casefold()
    try:
        host = urlsplit(plain if "//" in plain else "//" + plain).hostname
    except ValueError:
        return None
    domain = (host or "").removeprefix("www.").strip(".")
    return domain if 0 < len(domain) <= MAX_DOMAIN and " " not in domain else None
