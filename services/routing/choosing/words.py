"""A decision in words: why him, and why not the others. In Russian, for whoever asks.

Everything is taken from the record: the rule set of that version, the roster and the state of that
moment, the lead as it was known then, and what came out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from services.routing.choosing.floor import Floor
from services.routing.choosing.lead import LeadFacts
from services.routing.choosing.rule_set import MEMBERS, Conditions, Prepared

PASSED_OVER = {
    ".": "свободен, но очередь не его",
    "n": "свободен, но придержан для заявок другой сложности",
    "o": "не на смене",
    "a": "отсутствует",
    "s": "болеет",
    "p": "на перерыве",
    "h": "не на связи",
    "i": "больше не работает",
    "q": "эту заявку ему в этом круге уже предлагали",
    "c": "заявок в работе столько, сколько он может вести",
    "H": "лимит заявок за час",
    "D": "лимит заявок за сутки",
    "l": "не говорит на языке клиента",
    "z": "клиент не из его зоны",
    "k": "нет нужного навыка",
}
CHOSEN = "*"
STRATEGIES = {
    "owner": "свой менеджер клиента",
    "rotation": "по очереди",
    "qualification": "по квалификации",
    "load": "по загрузке",
    "result": "по результатам",
}
NAMES = {
    "regions": "регион",
    "cities": "город",
    "phone_countries": "страна телефона",
    "phone_regions": "регион телефона",
    "products": "продукт",
    "languages": "язык",
    "channels": "канал",
    "sources": "источник",
    "complexities": "сложность",
    "kinds": "вид обращения",
}


@dataclass(frozen=True, slots=True)
class Considered:
    """One manager as a decision saw them.

    Attributes:
        team: For which team they were looked at.
        verdict: Why they were passed over; None: they got the lead.
        open_leads: What they held at that moment.
        open_touches: Clients they had to speak with, where that was looked at.
        stood: Where they stood in the order of turns, where that was looked at.
    """

    manager_id: UUID
    team: str
    verdict: str | None
    words: str
    open_leads: int
    open_touches: int
    stood: int | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a lead went where it did.

    Attributes:
        conditions: Those of the rule that the lead met.
        load, stood: Of the chosen one, before and after.
    """

    at: datetime
    rule_version: int
    rule: str | None
    conditions: list[str]
    manager_id: UUID | None
    why: str
    team: str | None
    strategy: str | None
    round: int
    epoch: int
    load: tuple[int, int] | None
    stood: tuple[int, int] | None
    turn: int | None
    share_percent: float | None
    muted_until: datetime | None
    candidates: list[Considered]
    words: str

    def record(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def explained(
    roster: bytes,
    inputs: bytes,
    outcomes: bytes,
    place: int,
    rules: Prepared,
    names: Mapping[UUID, str],
) -> Explanation:
    """One decision of a recorded sitting.

    Args:
        place: Of the decision in the sitting.
        names: Of managers, for the words.
    """
    told = orjson.loads(inputs)
    all_made = orjson.loads(outcomes)
    made = all_made[place]
    lead = LeadFacts.recorded(told["leads"][place])
    floor = Floor.recorded(orjson.loads(roster), told)
    seats = [seat.manager_id for seat in floor.seats]
    loads = _loads_before(told["loads"], seats, all_made[:place])
    touches = told.get("touches", [0] * len(seats))
    stands = _stands_before(floor, all_made, place)
    candidates = [
        Considered(
            manager_id=seats[number],
            team=team,
            verdict=None if mark == CHOSEN else mark,
            words="получил заявку" if mark == CHOSEN else PASSED_OVER[mark],
            open_leads=loads[number],
            open_touches=touches[number],
            stood=stands.get(team, {}).get(number),
        )
        for team, marks in made["tried"] or ()
        for number, mark in enumerate(marks)
        if mark != " "
    ]
    explanation = Explanation(
        at=datetime.fromisoformat(told["at"]),
        rule_version=told["rules"],
        rule=rules.name_of(made["rule"]),
        conditions=met(rules, made["rule"], lead),
        manager_id=UUID(made["manager_id"]) if made["manager_id"] else None,
        why=made["why"],
        team=made["team"],
        strategy=made["strategy"],
        round=made["round"],
        epoch=made["epoch"],
        load=tuple(made["load"]) if made["load"] else None,
        stood=tuple(made["stood"]) if made["stood"] else None,
        turn=made["turn"],
        share_percent=round(made["share"] / 10_000, 1) if made["share"] else None,
        muted_until=datetime.fromisoformat(made["muted_until"]) if made["muted_until"] else None,
        candidates=candidates,
        words="",
    )
    words = "\n".join(_words(explanation, names))
    return Explanation(**{**_members(explanation), "words": words})


def _members(explanation: Explanation) -> dict[str, Any]:
    return {name: getattr(explanation, name) for name in Explanation.__dataclass_fields__}


def _loads_before(
    loads: Sequence[int], seats: Sequence[UUID], before: Sequence[Mapping[str, Any]]
) -> list[int]:
    """What each held when this decision was made: earlier ones of the sitting count."""
    found = dict(zip(map(str, seats), loads, strict=True))
    for outcome in before:
        if outcome["manager_id"]:
            found[outcome["manager_id"]] = outcome["load"][1]
    return list(found.values())


def _stands_before(
    floor: Floor, outcomes: Sequence[Mapping[str, Any]], place: int
) -> dict[str, dict[int, int]]:
    """Where everybody stood in the wheel that was turned."""
    made = outcomes[place]
    if made["wheel"] is None:
        return {}
    wheel = floor.wheel(made["wheel"])
    stood = {number: at for at, _, number in wheel.order(range(len(floor.seats)))}
    for outcome in outcomes[:place]:
        if outcome["wheel"] == made["wheel"]:
            stood[floor.place[UUID(outcome["manager_id"])]] = outcome["stood"][1]
    return {made["team"]: stood}


def met(rules: Prepared, place: int | None, lead: LeadFacts) -> list[str]:
    """The conditions of a rule that a lead met, with the lead's own values."""
    if place is None:
        return []
    conditions: Conditions = rules.rule_set.rules[place].conditions
    found = [
        f"{NAMES[name]}: {getattr(lead, member)}"
        for name, member in MEMBERS
        if getattr(conditions, name)
    ]
    if conditions.domains:
        found.append(f"сайт: {lead.domain}")
    found += [f"метка {mark}: {lead.utm[mark]}" for mark in conditions.utm]
    if conditions.amount_from_minor is not None or conditions.amount_below_minor is not None:
        found.append(f"сумма: {(lead.amount_minor or 0) / 100:.2f}")
    if conditions.segments:
        found.append(f"сегмент: {lead.segment or 'нет'}")
    if conditions.owners:
        found.append("у клиента свой менеджер")
    if conditions.is_returning is not None:
        found.append("клиент вернулся" if lead.is_returning else "клиент новый")
    return found


def _words(explanation: Explanation, names: Mapping[UUID, str]) -> list[str]:
    def name(manager_id: UUID) -> str:
        return names.get(manager_id, str(manager_id))

    lines = [_rule_line(explanation)]
    if explanation.muted_until is not None:
        lines.append(f"Сегмент клиента придержан до {explanation.muted_until:%d.%m.%Y %H:%M} UTC.")
        return lines
    if explanation.manager_id is None:
        lines.append(f"Никому не предложена: {_nobody(explanation.why)}. Заявка в общей очереди.")
    else:
        strategy = STRATEGIES[explanation.strategy or "rotation"]
        before, after = explanation.load or (0, 0)
        line = f"Получает {name(explanation.manager_id)}: {strategy}, ход {explanation.turn}"
        if explanation.share_percent is not None:
            line += f", доля {explanation.share_percent} %"
        lines.append(f"{line}; заявок в работе было {before}, стало {after}.")
    lines += [
        f"— {name(one.manager_id)} ({one.team}): {one.words}; заявок в работе {one.open_leads}"
        + (f", касаний {one.open_touches}." if one.open_touches else ".")
        for one in explanation.candidates
        if one.verdict is not None
    ]
    return lines


def _rule_line(explanation: Explanation) -> str:
    version = f"Правила версии {explanation.rule_version}"
    if explanation.rule is None:
        return f"{version}: ни одно правило не подошло, действует «для остальных»."
    said = "; ".join(explanation.conditions) or "без условий"
    return f"{version}: сработало «{explanation.rule}» ({said})."


_NOBODY = {
    "nobody is on shift": "никого нет на смене",
    "everybody on shift was asked or is full": "всем на смене уже предлагали или у них нет места",
    "nobody on shift may have it now": "никому на смене её сейчас дать нельзя",
}


def _nobody(why: str) -> str:
    return _NOBODY.get(why, f"её предлагали слишком много раз ({why})")
