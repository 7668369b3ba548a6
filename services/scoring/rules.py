"""RFM rule sets: policy with versions, edited by API, one in force.

A rule set says how long the period is, in whose time zone days are counted, what counts (days with
a purchase or purchases), what money is counted in, where each axis is cut (at fixed bounds, or at
the base's quintiles at activation), which ratings make which segment and how soon its clients are
to be spoken with. A value on a bound is above it. Quintiles end one step above the quantile, so
that a value equal to it is below the bound, unless the rule set says otherwise (`ties`). Segments
are tried in their order, the first whose conditions hold wins. A version never changes once it is
activated; a change is a new version.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from libs.shared.calendars import Calendar
from libs.shared.errors import DomainError
from libs.shared.field_types import Currency, Zone
from services.scoring.habits import HabitRule
from services.scoring.rfm import Cuts, Ranges, Scores, segment_map
from services.scoring.touch_sla import TouchSla

Rating = Annotated[int, Field(strict=True, ge=1, le=5)]
# Up to more than can ever be rated: days of a life, the largest amount.
Bound = Annotated[float, Field(strict=True, ge=0, le=10**15, allow_inf_nan=False)]
DayBound = Annotated[float, Field(strict=True, ge=0, le=36_600, allow_inf_nan=False)]
FourBounds = tuple[Bound, Bound, Bound, Bound]
Code = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Label = Annotated[str, Field(min_length=1, max_length=100)]  # shown to users, in Russian
Priority = Annotated[int, Field(strict=True, ge=1, le=1000)]  # 1 is called first
Days = Annotated[int, Field(strict=True, ge=1, le=3660)]
# The largest amount times the highest rate still is a 64-bit number.
Rate = Annotated[Decimal, Field(ge=Decimal("1e-9"), le=9000, allow_inf_nan=False)]


class CurrencyWithoutRate(DomainError):
    """This currency has no exchange rate in the rule set in force."""

    status = 409
    code = "currency-without-rate"
    ru = "Для этой валюты нет курса в действующих правилах."


class _Treated(BaseModel):
    """How a segment's clients are treated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    priority: Priority = 5
    touch_every_days: Days = 30  # at the latest so long after the last touch, if no `touch` is set
    touch: TouchSla | None = None

    @property
    def sla(self) -> TouchSla:
        """When somebody has to speak with a client of this segment."""
        return self.touch or TouchSla(every=self.touch_every_days, unit="days")


class SegmentRule(_Treated):
    """One segment: which clients it takes in, all conditions together, and how they are treated.

    Attributes:
        recency: Lowest and highest rating, both included; a condition left out holds for all.
        monthly_run_from: In each of the last so many calendar months there was a purchase; the
            current one may still be without.
    """

    name: Code
    label: Label
    recency: tuple[Rating, Rating] = (1, 5)
    frequency: tuple[Rating, Rating] = (1, 5)
    monetary: tuple[Rating, Rating] = (1, 5)
    monthly_run_from: Annotated[int, Field(strict=True, ge=1, le=120)] | None = None

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        for low, high in (self.recency, self.frequency, self.monetary):
            if low > high:
                raise ValueError("a range must go from the lower to the higher rating")
        return self


class OtherSegment(_Treated):
    """Where clients go whose ratings no segment takes in: everybody has exactly one segment."""

    name: Code = "others"
    label: Label = "Остальные"
    priority: Priority = 8
    touch_every_days: Days = 60


class FixedCuts(BaseModel):
    """Cuts written down by the analyst; see `rfm.Cuts` for their meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recency_days: tuple[DayBound, DayBound, DayBound, DayBound] = (31, 61, 91, 181)
    frequency: FourBounds = (2, 3, 5, 10)
    monetary_minor: FourBounds = (500_000, 2_000_000, 5_000_000, 15_000_000)

    @field_validator("recency_days", "frequency", "monetary_minor")
    @classmethod
    def _ascend(cls, bounds: FourBounds) -> FourBounds:
        if list(bounds) != sorted(bounds):
            raise ValueError("bounds must ascend")
        return bounds


Method = Literal["fixed", "quintile"]


class Methods(BaseModel):
    """How each axis is cut."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recency: Method = "fixed"
    frequency: Method = "fixed"
    monetary: Method = "fixed"


class RuleSet(BaseModel):
    """Everything that decides a segment.

    Attributes:
        method: One for all axes, or one for each.
        ties: Where a value goes that equals a quintile's quantile.
        calendar: Working days and hours that the touch SLAs count in.
        habits: When a history lets expect the next purchase.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: Annotated[str, Field(min_length=1, max_length=200)] = "RFM"
    zone: Zone = "Europe/Moscow"  # whose midnight ends a day
    period_days: Days = 365
    frequency_counts: Literal["purchase_days", "purchases"] = "purchase_days"
    reporting_currency: Currency = "RUB"
    # Minor units of the reporting currency for one minor unit of the other.
    exchange_rates: Annotated[dict[Currency, Rate], Field(max_length=300)] = {}
    method: Method | Methods = "fixed"
    ties: Literal["below", "above"] = "below"
    fixed_cuts: FixedCuts = FixedCuts()
    # Quintiles of money end one such step above the quantile.
    money_step_minor: Annotated[int, Field(strict=True, ge=1, le=10**12)] = 100
    segments: Annotated[tuple[SegmentRule, ...], Field(min_length=1, max_length=50)]
    otherwise: OtherSegment = OtherSegment()
    calendar: Calendar = Calendar()
    habits: HabitRule = HabitRule()

    @model_validator(mode="after")
    def _the_reporting_currency_is_one(self) -> Self:
        if self.exchange_rates.get(self.reporting_currency, 1) != 1:
            raise ValueError("the reporting currency is worth 1 of itself")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [segment.name for segment in self.segments] + [self.otherwise.name]
        if len(set(names)) != len(names):
            raise ValueError("two segments have the same name")
        return self

    @property
    def methods(self) -> Methods:
        """How each axis is cut."""
        if isinstance(self.method, Methods):
            return self.method
        return Methods(recency=self.method, frequency=self.method, monetary=self.method)

    def treatment(self) -> Mapping[str, SegmentRule | OtherSegment]:
        """How each segment's clients are treated, by segment name."""
        rules: list[SegmentRule | OtherSegment] = [*self.segments, self.otherwise]
        return {rule.name: rule for rule in rules}


class Basis(NamedTuple):
    """What a client's figures depend on besides the purchases.

    Rule sets with the same basis differ only in what they make of the figures, so what was counted
    under one holds under the other.
    """

    zone: str
    period_days: int
    frequency_counts: str
    rates: frozenset[tuple[str, Decimal]]
    with_runs: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """A rule set in force, ready to be applied to thousands of clients.

    Attributes:
        segments: For a client whose run of months is shorter than any segment asks for.
        run_bounds: The runs of months that segments ask for, ascending; mostly none.
        segments_by_run: For each number of run bounds reached; the first is `segments`.
        texts: What stands in the database of it: whoever finds the same there has these rules.
    """

    version: int
    rule_set: RuleSet
    cuts: Cuts
    segments: Mapping[Scores, str]
    run_bounds: tuple[int, ...]
    segments_by_run: tuple[Mapping[Scores, str], ...]
    counts_purchases: bool
    zone: ZoneInfo
    period: timedelta
    rates: Mapping[str, Decimal]
    names: frozenset[str]
    texts: tuple[str, ...]

    @classmethod
    def of(
        cls, version: int, rule_set: RuleSet, cuts: Cuts, texts: tuple[str, ...] = ()
    ) -> "Rules":
        """Prepare a version for use."""
        ranges = [
            Ranges(r.name, r.recency, r.frequency, r.monetary, r.monthly_run_from or 0)
            for r in rule_set.segments
        ]
        run_bounds = tuple(sorted({r.monthly_run_from for r in ranges} - {0}))
        maps = [segment_map(ranges, rule_set.otherwise.name, run) for run in (0, *run_bounds)]
        return cls(
            version=version,
            rule_set=rule_set,
            cuts=cuts,
            segments=maps[0],
            run_bounds=run_bounds,
            segments_by_run=tuple(maps),
            counts_purchases=rule_set.frequency_counts == "purchases",
            zone=ZoneInfo(rule_set.zone),
            period=timedelta(days=rule_set.period_days),
            rates={rule_set.reporting_currency: Decimal(1)} | rule_set.exchange_rates,
            names=frozenset(rule_set.treatment()),
            texts=texts,
        )

    @property
    def basis(self) -> Basis:
        """What the figures depend on."""
        return Basis(
            self.rule_set.zone,
            self.rule_set.period_days,
            self.rule_set.frequency_counts,
            frozenset(self.rates.items()),
            bool(self.run_bounds),
        )

    def segment_of(self, scores: Scores, monthly_run: int) -> str:
        """The segment of these ratings and this run of months."""
        return self.segments_by_run[bisect_right(self.run_bounds, monthly_run)][scores]

    def day_of(self, moment: datetime) -> date:
        """The company's day in which an instant lies."""
        return moment.astimezone(self.zone).date()

    def start_of(self, day: date) -> datetime:
        """The instant at which a company's day begins."""
        return _start_of(day, self.zone)

    def value_minor(self, amount_minor: int, currency: str) -> int:
        """Money in the reporting currency, rounded half up as PostgreSQL rounds.

        Raises:
            CurrencyWithoutRate: The rule set does not say what this currency is worth.
        """
        rate = self.rates.get(currency)
        if rate is None:
            raise CurrencyWithoutRate(currency=currency)
        if rate == 1:
            return amount_minor
        return int((amount_minor * rate).to_integral_value(ROUND_HALF_UP))


@lru_cache(maxsize=20_000)
def _start_of(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)
