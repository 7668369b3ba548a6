"""The CDNOW purchase history: 23,570 customers, 69,659 purchases, January 1997 to June 1998.

The file comes inside the PyPI package `lifetimes`, which is installed without what it would need to
run: here it is a data file only.

Source: P. Fader and B. Hardie, "Creating an RFM summary using Excel" (2008), data set CDNOW_master.
"""

import importlib.util
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

ZONE = ZoneInfo("Europe/Moscow")
NOON = time(12)


@dataclass(frozen=True, slots=True)
class Purchase:
    """One purchase; `number` counts a customer's purchases from 1 and makes its id."""

    customer: str
    number: int
    day: date
    amount_minor: int  # US cents

    @property
    def external_id(self) -> str:
        return f"cdnow-{self.customer}-{self.number}"

    @property
    def closed_at(self) -> str:
        return datetime.combine(self.day, NOON, tzinfo=ZONE).isoformat()


def purchases() -> list[Purchase]:
    """All purchases, by day and customer."""
    counted: dict[str, int] = {}
    found = []
    for line in _file().read_text(encoding="ascii").splitlines():
        parts = line.split()
        if len(parts) != 4 or not parts[0].isdigit():
            continue  # the heading
        customer, day, _discs, dollars = parts
        counted[customer] = number = counted.get(customer, 0) + 1
        found.append(
            Purchase(
                customer,
                number,
                datetime.strptime(day, "%Y%m%d").date(),  # noqa: DTZ007
                int(Decimal(dollars) * 100),
            )
        )
    return sorted(found, key=lambda p: (p.day, p.customer, p.number))


def _file() -> Path:
    package = importlib.util.find_spec("lifetimes")
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError("the package lifetimes is missing: run `make setup`")
    return Path(package.submodule_search_locations[0]) / "datasets" / "CDNOW_master.txt"
