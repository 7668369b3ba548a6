"""Conditions over what is known of a client, and their SQL.

A condition that asks how many days ago something was changes by itself: beside the truth each gives
the next day on which it may be another. What never happened is no number of days ago, so such a
condition does not hold, unless `or_never` is set.
"""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from libs.shared.field_types import Code, Int64, Text200

Rating = Annotated[int, Field(strict=True, ge=1, le=5)]
Count = Annotated[int, Field(strict=True, ge=0, le=36_600)]
Texts = Annotated[tuple[Text200, ...], Field(min_length=1, max_length=200)]
MOST_CONDITIONS = 100

_CARD = {"status": "status", "city": "city", "language": "language", "client_kind": "kind"}
_DAYS = {
    "purchase": "last_day",
    "touch": "(last_touch_at AT TIME ZONE {zone})::date",
    "card": "(created_at AT TIME ZONE {zone})::date",
    "message": "(last_sent_at AT TIME ZONE {zone})::date",
    "opening": "(last_opened_at AT TIME ZONE {zone})::date",
    "page": "(last_page_at AT TIME ZONE {zone})::date",
}


class Asked:
    """The parameters of a statement, and the days on which conditions may turn.

    Attributes:
        base_average_minor: What the base spends at a purchase, for conditions that compare.
    """

    def __init__(self, today: date, zone: str, base_average_minor: float) -> None:
        self.values: list[object] = []
        self.turning_days: list[str] = []
        self.base_average_minor = base_average_minor
        self.today = self.add(today, "date")
        self.zone = self.add(zone, "text")

    def add(self, value: object, of_type: str) -> str:
        """The placeholder of a parameter."""
        self.values.append(value)
        return f"(${len(self.values)}::{of_type})"


class _Condition(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Range(_Condition):
    at_least: Int64 | None = None
    below: Int64 | None = None

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if self.at_least is None and self.below is None:
            raise ValueError("a range has at least one end")
        return self

    def between(self, value: str, asked: Asked) -> str:
        """SQL: the value lies in the range."""
        ends = []
        if self.at_least is not None:
            ends.append(f"{value} >= {asked.add(self.at_least, 'bigint')}")
        if self.below is not None:
            ends.append(f"{value} < {asked.add(self.below, 'bigint')}")
        return " AND ".join(ends)


class InSegment(_Condition):
    """In one of these segments."""

    kind: Literal["segment"]
    any_of: Texts

    def sql(self, asked: Asked) -> str:
        return f"segment = ANY{asked.add(list(self.any_of), 'text[]')}"


class Rated(_Condition):
    """Rated from so much to so much on an axis."""

    kind: Literal["rating"]
    axis: Literal["recency", "frequency", "monetary"]
    lowest: Rating = 1
    highest: Rating = 5

    def sql(self, asked: Asked) -> str:
        low, high = asked.add(self.lowest, "int"), asked.add(self.highest, "int")
        return f"{self.axis}_score BETWEEN {low} AND {high}"


class Spent(_Range):
    """Money kept in the period, minor units of the reporting currency."""

    kind: Literal["money"]

    def sql(self, asked: Asked) -> str:
        return self.between("monetary_minor", asked)


class Bought(_Range):
    """Purchase days in the period."""

    kind: Literal["frequency"]

    def sql(self, asked: Asked) -> str:
        return self.between("frequency", asked)


class AboveAverage(_Condition):
    """Spends more at a purchase than the base does on average (taken anew with each recount)."""

    kind: Literal["check_above_average"]

    def sql(self, asked: Asked) -> str:
        average = asked.add(asked.base_average_minor, "float8")
        return f"monetary_minor::float8 / nullif(frequency, 0) > {average}"


class DaysSince(_Condition):
    """So many days ago, or less.

    Attributes:
        what: A purchase, a touch, the making of the card, a message to the client, the opening of
            one, a page of ours that the client has looked at.
    """

    kind: Literal["days_since"]
    what: Literal["purchase", "touch", "card", "message", "opening", "page"]
    at_least: Count | None = None
    below: Count | None = None
    or_never: bool = False

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if self.at_least is None and self.below is None:
            raise ValueError("a number of days has at least one end")
        return self

    def sql(self, asked: Asked) -> str:
        day = _DAYS[self.what].format(zone=asked.zone)
        ends = []
        for bound, sign in ((self.at_least, ">="), (self.below, "<")):
            if bound is not None:
                number = asked.add(bound, "int")
                ends.append(f"{asked.today} - {day} {sign} {number}")
                asked.turning_days.append(f"{day} + {number}")
        return f"coalesce({' AND '.join(ends)}, {str(self.or_never).lower()})"


class Tagged(_Condition):
    """Has one of these tags."""

    kind: Literal["tag"]
    any_of: Texts

    def sql(self, asked: Asked) -> str:
        return f"tags && {asked.add(list(self.any_of), 'text[]')}"


class OnCard(_Condition):
    """The card says one of these."""

    kind: Literal["status", "city", "language", "client_kind"]
    any_of: Texts

    def sql(self, asked: Asked) -> str:
        return f"{_CARD[self.kind]} = ANY{asked.add(list(self.any_of), 'text[]')}"


class AskedFor(_Condition):
    """Has ever asked by one of these channels or sources, or for one of these products."""

    kind: Literal["channel", "source", "product"]
    any_of: Texts

    def sql(self, asked: Asked) -> str:
        values = asked.add([value.casefold() for value in self.any_of], "text[]")
        return (
            "EXISTS (SELECT FROM asked_for AS a WHERE a.client_id = f.client_id"
            f" AND a.kind = '{self.kind}' AND a.value = ANY{values})"
        )


class Unopened(_Range):
    """So many messages in a row that the client has not opened, the last one included."""

    kind: Literal["unopened"]

    def sql(self, asked: Asked) -> str:
        return self.between("unopened", asked)


class Opened(_Range):
    """So many messages that the client has opened."""

    kind: Literal["opened"]

    def sql(self, asked: Asked) -> str:
        return self.between("opened", asked)


class ViewedPage(_Condition):
    """Has looked at a page, or at one below it.

    Attributes:
        page: Site and path, or their beginning: shop.example/price.
        below: Less than so many days ago; at any time if left out.
    """

    kind: Literal["viewed_page"]
    page: Text200
    below: Annotated[int, Field(strict=True, ge=1, le=36_600)] | None = None

    def sql(self, asked: Asked) -> str:
        beginning = asked.add(self.page.removesuffix("/"), "text")
        viewed = (
            "FROM client_pages AS v WHERE v.client_id = f.client_id"
            f" AND (v.page = {beginning} OR starts_with(v.page, {beginning} || '/'))"
        )
        if self.below is None:
            return f"EXISTS (SELECT {viewed})"
        number = asked.add(self.below, "int")
        last = f"(SELECT max((v.last_viewed_at AT TIME ZONE {asked.zone})::date) {viewed})"
        asked.turning_days.append(f"{last} + {number}")
        return f"{asked.today} - {last} < {number}"


class AllOf(_Condition):
    """All of these hold."""

    kind: Literal["all"]
    of: Annotated[tuple["Condition", ...], Field(min_length=1, max_length=20)]

    def sql(self, asked: Asked) -> str:
        return _joined(self.of, " AND ", asked)


class AnyOf(_Condition):
    """At least one of these holds."""

    kind: Literal["any"]
    of: Annotated[tuple["Condition", ...], Field(min_length=1, max_length=20)]

    def sql(self, asked: Asked) -> str:
        return _joined(self.of, " OR ", asked)


class NoneOf(_Condition):
    """None of these holds; what is not known does not hold."""

    kind: Literal["none"]
    of: Annotated[tuple["Condition", ...], Field(min_length=1, max_length=20)]

    def sql(self, asked: Asked) -> str:
        return f"NOT {_joined(self.of, ' OR ', asked)}"


Condition = Annotated[
    InSegment
    | Rated
    | Spent
    | Bought
    | AboveAverage
    | DaysSince
    | Tagged
    | OnCard
    | AskedFor
    | Unopened
    | Opened
    | ViewedPage
    | AllOf
    | AnyOf
    | NoneOf,
    Field(discriminator="kind"),
]
for _model in (AllOf, AnyOf, NoneOf):
    _model.model_rebuild()


def _joined(conditions: Sequence["Condition"], word: str, asked: Asked) -> str:
    return "(" + word.join(f"coalesce({c.sql(asked)}, false)" for c in conditions) + ")"


def size_of(condition: "Condition") -> int:
    """How many conditions there are in it."""
    inner = getattr(condition, "of", ())
    return 1 + sum(size_of(each) for each in inner)


def uses_average(condition: "Condition") -> bool:
    """Whether it compares with the base's average."""
    return isinstance(condition, AboveAverage) or any(
        uses_average(each) for each in getattr(condition, "of", ())
    )


def uses_messages(condition: "Condition") -> bool:
    """Whether it looks at what the client was sent."""
    is_one = isinstance(condition, Unopened | Opened) or (
        isinstance(condition, DaysSince) and condition.what in ("message", "opening")
    )
    return is_one or any(uses_messages(each) for each in getattr(condition, "of", ()))


def uses_pages(condition: "Condition") -> bool:
    """Whether it asks how long ago any page was looked at."""
    is_one = isinstance(condition, DaysSince) and condition.what == "page"
    return is_one or any(uses_pages(each) for each in getattr(condition, "of", ()))


class Mute(_Condition):
    """The audience is empty on these days, both included: a season in which to leave them alone."""

    first_day: date
    last_day: date

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last_day < self.first_day:
            raise ValueError("the last day comes before the first")
        return self


class AudienceRule(BaseModel):
    """An audience as it is written down."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: Code
    label: Text200  # shown to users
    condition: Condition
    mute: Mute | None = None

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if size_of(self.condition) > MOST_CONDITIONS:
            raise ValueError(f"more than {MOST_CONDITIONS} conditions")
        return self


READY = (
    AudienceRule(
        code="new_subscribers",
        label="Новые подписчики: не больше 30 дней",
        condition=DaysSince(kind="days_since", what="card", below=31),
    ),
    AudienceRule(
        code="check_above_average",
        label="Клиенты с чеком выше среднего",
        condition=AboveAverage(kind="check_above_average"),
    ),
    AudienceRule(
        code="inactive_90_days",
        label="Неактивные больше 90 дней",
        condition=DaysSince(kind="days_since", what="purchase", at_least=91),
    ),
    AudienceRule(
        code="unopened_6",
        label="Не открыли 6 последних писем",
        condition=Unopened(kind="unopened", at_least=6),
    ),
)
