"""Distribution rules: which team a lead goes to and how the team's own are chosen among.

Rules stand in an order and the first that fits wins. A rule fits when each of its conditions does;
a condition that names nothing fits everything. Texts are compared without regard to case. What no
rule fits goes by `otherwise`. A rule set never changes once it is in force: another version does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from libs.shared.field_types import AmountMinor, Code, Flag, Text50, Text200
from services.routing.choosing.lead import LeadFacts

EVERYBODY = "all"
"""The team that everybody is in."""

Texts = Annotated[tuple[Text200, ...], Field(max_length=500)]
Country = Annotated[str, StringConstraints(pattern="^[A-Z]{2}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Conditions(_Part):
    """What a lead must be like; each that is given must hold, of several values any.

    Attributes:
        domains: `baza.ru` is that site, `.ru` every site under it.
        utm: Values by mark: source, medium, campaign, term, content.
        amount_from_minor: At least so much, in the currency's minor unit.
        amount_below_minor: Less than that.
        segments: `none` is a client without a segment.
    """

    regions: Texts = ()
    cities: Texts = ()
    phone_countries: Annotated[tuple[Country, ...], Field(max_length=250)] = ()
    phone_regions: Texts = ()
    domains: Texts = ()
    products: Texts = ()
    languages: Texts = ()
    channels: Texts = ()
    sources: Texts = ()
    utm: Annotated[dict[Text50, Texts], Field(max_length=5)] = {}
    amount_from_minor: AmountMinor | None = None
    amount_below_minor: AmountMinor | None = None
    segments: Texts = ()
    owners: Annotated[tuple[UUID, ...], Field(max_length=500)] = ()
    is_returning: Flag | None = None
    complexities: Annotated[tuple[Literal["typical", "complex"], ...], Field(max_length=2)] = ()
    kinds: Annotated[
        tuple[Literal["request", "handoff", "complaint"], ...], Field(max_length=3)
    ] = ()


class Strategy(_Part):
    """How one is chosen among those who are free.

    Attributes:
        kind: rotation: in turn, by weight; qualification: complex leads to the experienced,
            typical ones to novices; load: who has least to do for their capacity; result: more to
            those whose leads more often became deals.
        skill: What is needed to get a lead at all; `product` is the lead's own product.
        least_level: Of that skill, to get a lead at all.
        experienced_from_level: For `qualification`.
        floor_percent: For `result`: nobody gets a smaller share than that.
        newcomer_leads: For `result`: who has had fewer counts as average.
    """

    kind: Literal["rotation", "qualification", "load", "result"] = "rotation"
    skill: Text50 | None = None
    least_level: Annotated[int, Field(strict=True, ge=1, le=10)] = 1
    experienced_from_level: Annotated[int, Field(strict=True, ge=1, le=10)] = 3
    floor_percent: Annotated[int, Field(strict=True, ge=0, le=50)] = 5
    newcomer_leads: Annotated[int, Field(strict=True, ge=1, le=1000)] = 10

    @model_validator(mode="after")
    def _has_its_skill(self) -> Self:
        if self.kind == "qualification" and self.skill is None:
            raise ValueError("qualification needs a skill to go by")
        return self


class Goal(_Part):
    """Where leads go: a team, and others in order when nobody of it is free."""

    team: Code = EVERYBODY
    strategy: Strategy = Strategy()
    fallback: Annotated[tuple[Code, ...], Field(max_length=20)] = ()
    match_language: Flag = True  # who names languages gets leads in no other
    match_zone: Flag = True  # who names zones gets leads from nowhere else
    owner_first: Flag | None = None  # null: as the policy `claims` has it


class Rule(Goal):
    """A name that a supervisor knows, conditions and where to."""

    name: Text200
    conditions: Conditions = Conditions()


class RuleSet(_Part):
    """All rules, in their order."""

    rules: Annotated[tuple[Rule, ...], Field(max_length=200)] = ()
    otherwise: Goal = Goal()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise ValueError("two rules have the same name")
        return self

    def teams(self) -> dict[str, str]:
        """Every team that is named, with a JSON pointer to its first place."""
        found: dict[str, str] = {}
        for pointer, goal in self._goals():
            found.setdefault(goal.team, f"{pointer}/team")
            for place, team in enumerate(goal.fallback):
                found.setdefault(team, f"{pointer}/fallback/{place}")
        return found

    def _goals(self) -> Sequence[tuple[str, Goal]]:
        rules = [(f"/rules/{place}", rule) for place, rule in enumerate(self.rules)]
        return [*rules, ("/otherwise", self.otherwise)]

    def shadowed(self) -> list[tuple[int, int]]:
        """Rules that no lead can reach, each with an earlier one that takes all of its leads."""
        found = []
        for later, rule in enumerate(self.rules):
            for earlier in range(later):
                if _covers(self.rules[earlier].conditions, rule.conditions):
                    found.append((later, earlier))
                    break
        return found


def _covers(wide: Conditions, narrow: Conditions) -> bool:
    """Whether all that fits `narrow` surely fits `wide`."""
    for name in Conditions.model_fields:
        wanted, given = getattr(wide, name), getattr(narrow, name)
        if wanted in ((), {}, None):
            continue
        if not _COVERS.get(name, _any_of)(wanted, given):
            return False
    return True


def _any_of(wanted: Any, given: Any) -> bool:
    if isinstance(wanted, tuple):
        return bool(given) and set(map(_plain, given)) <= set(map(_plain, wanted))
    return bool(wanted == given)


_COVERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "domains": lambda wanted, given: (
        bool(given)
        and all(any(_in_domain(g.casefold(), w.casefold()) for w in wanted) for g in given)
    ),
    "utm": lambda wanted, given: all(
        mark in given and _any_of(values, given[mark]) for mark, values in wanted.items()
    ),
    "amount_from_minor": lambda wanted, given: given is not None and given >= wanted,
    "amount_below_minor": lambda wanted, given: given is not None and given <= wanted,
}


def _plain(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


def _in_domain(domain: str, wanted: str) -> bool:
    if wanted.startswith("."):
        return domain == wanted or domain.endswith(wanted)
    return domain == wanted


Fits = Callable[[LeadFacts], bool]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A rule set made ready for many leads.

    Attributes:
        kinds: Of strategies that any of the rules goes by.
    """

    version: int
    rule_set: RuleSet
    tests: tuple[tuple[Fits, ...], ...]
    kinds: frozenset[str]

    @classmethod
    def of(cls, version: int, rule_set: RuleSet) -> "Prepared":
        return cls(
            version,
            rule_set,
            tests=tuple(_tests(rule.conditions) for rule in rule_set.rules),
            kinds=frozenset(goal.strategy.kind for _, goal in rule_set._goals()),
        )

    def first_fit(self, lead: LeadFacts) -> tuple[int | None, Goal]:
        """Place of the first rule that fits (None: `otherwise`), and where the lead goes."""
        for place, tests in enumerate(self.tests):
            for fits in tests:
                if not fits(lead):
                    break
            else:
                return place, self.rule_set.rules[place]
        return None, self.rule_set.otherwise

    def name_of(self, place: int | None) -> str | None:
        """A rule's name."""
        return None if place is None else self.rule_set.rules[place].name


@lru_cache(maxsize=64)
def prepared(version: int, stored: str) -> Prepared:
    """A stored version, ready for use."""
    return Prepared.of(version, RuleSet.model_validate_json(stored))


MEMBERS = (
    ("regions", "region"),
    ("cities", "city"),
    ("phone_countries", "phone_country"),
    ("phone_regions", "phone_region"),
    ("products", "product"),
    ("languages", "language"),
    ("channels", "channel"),
    ("sources", "source"),
    ("complexities", "complexity"),
    ("kinds", "kind"),
)


def _tests(conditions: Conditions) -> tuple[Fits, ...]:
    tests = [
        _one_of(member, frozenset(map(str.casefold, values)))
        for name, member in MEMBERS
        if (values := getattr(conditions, name))
    ]
    if conditions.domains:
        domains = tuple(domain.casefold() for domain in conditions.domains)
        tests.append(lambda lead: any(_in_domain(lead.domain or "", wanted) for wanted in domains))
    for mark, values in conditions.utm.items():
        tests.append(_has_mark(mark, frozenset(map(str.casefold, values))))
    if (least := conditions.amount_from_minor) is not None:
        tests.append(lambda lead: lead.amount_minor is not None and lead.amount_minor >= least)
    if (below := conditions.amount_below_minor) is not None:
        tests.append(lambda lead: lead.amount_minor is not None and lead.amount_minor < below)
    if conditions.segments:
        segments = frozenset(conditions.segments)
        tests.append(lambda lead: (lead.segment or "none") in segments)
    if conditions.owners:
        owners = frozenset(conditions.owners)
        tests.append(lambda lead: lead.owner_id in owners)
    if (returning := conditions.is_returning) is not None:
        tests.append(lambda lead: lead.is_returning is returning)
    return tuple(tests)


def _one_of(member: str, wanted: frozenset[str]) -> Fits:
    def fits(lead: LeadFacts) -> bool:
        value: str | None = getattr(lead, member)
        return value is not None and value.casefold() in wanted

    return fits


def _has_mark(mark: str, wanted: frozenset[str]) -> Fits:
    return lambda lead: lead.utm.get(mark, "").casefold() in wanted
