"""Second story: leads by a signed form, round robin, claims, and what happens to the unclaimed."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from deploy.local.demo.doors import Doors, until
from deploy.local.demo.observer import Observer

MANAGERS = ("Анна Смирнова", "Борис Орлов", "Вера Котова")
LEADS = 12
LEFT_UNCLAIMED = 5
CLAIM_WINDOW = timedelta(minutes=15)


@dataclass(slots=True)
class LeadFacts:
    """What the second story found out."""

    received: int = 0
    assigned: int = 0
    claimed: int = 0
    unclaimed: int = 0
    reassigned: int = 0
    two_owners: int = 0
    no_owner: int = 0
    forged_accepted: int = 0
    by_manager: dict[str, int] = field(default_factory=dict)

    def report(self) -> dict[str, int]:
        """The members that report.json names."""
        names = (
            "received",
            "assigned",
            "claimed",
            "unclaimed",
            "reassigned",
            "two_owners",
            "no_owner",
        )
        return {name: getattr(self, name) for name in names}


async def play(doors: Doors, observer: Observer, say: Any) -> LeadFacts:
    """Play the story."""
    managers = await hire(doors)
    say(f"{LEADS} leads by a signed form webhook; one comes twice, one is forged")
    forged = await submit_forms(doors)
    offered = await offers(doors, observer, LEADS, epoch=1)
    say(f"{LEADS - LEFT_UNCLAIMED} are claimed, {LEFT_UNCLAIMED} are left; 15 minutes pass")
    await claim(doors, managers, offered[LEFT_UNCLAIMED:])
    await doors.advance(CLAIM_WINDOW)
    again = await offers(doors, observer, LEFT_UNCLAIMED, epoch=2)
    say(f"{len(again)} leads went to the next manager and are claimed there")
    await claim(doors, managers, again)

    async def all_claimed() -> bool:
        return observer.names["lead.claimed"] >= LEADS

    await until("every claim is told", all_claimed)
    return facts_of(observer, managers, forged)


async def hire(doors: Doors) -> dict[str, str]:
    """Three managers on shift; names by id."""
    managers = {}
    for name in MANAGERS:
        made = await doors.call("POST", "routing", "/v1/managers", {"name": name})
        managers[made["id"]] = name
        await doors.add_manager(name, made["id"])
        await doors.call("POST", "routing", f"/v1/managers/{made['id']}/shift/start", {})
    return managers


async def submit_forms(doors: Doors) -> int:
    """Post the forms, the first one twice, one more with a spoilt body; how many forged got in."""
    for number in range(1, LEADS + 1):
        form = {
            "name": f"Посетитель {number}",
            "phone": f"8 (912) 555-{number:02d}-{number:02d}",
            "email": f"visitor-{number}@example.com",
            "comment": "Перезвоните, пожалуйста",
            "utm_source": "yandex",
        }
        for _ in range(2 if number == 1 else 1):
            await doors.submit_form(form, identity=f"msg_form_{number}")
    return int(await doors.submit_form({"name": "Подделка"}, spoil=True) < 400)


async def offers(
    doors: Doors, observer: Observer, count: int, *, epoch: int
) -> Sequence[tuple[str, str, int]]:
    """Wait for so many offers of an epoch: lead, manager and epoch, in the order of assignment."""

    def made() -> list[tuple[str, str, int]]:
        return [
            (lead, data["manager_id"], data["epoch"])
            for lead, events in observer.leads.items()
            for name, data in events
            if name == "lead.assigned" and data["epoch"] == epoch
        ]

    async def enough() -> bool:
        return len(made()) >= count

    await until(f"{count} leads are offered", enough)

    async def visible() -> bool:
        held = await doors.call("GET", "routing", "/v1/leads?state=offered&limit=100")
        return {(lead["id"], lead["epoch"]) for lead in held["items"]} >= {
            (lead, epoch) for lead, _, _ in made()
        }

    await until("the offers stand", visible)
    return sorted(made())


async def claim(
    doors: Doors, managers: dict[str, str], offered: Sequence[tuple[str, str, int]]
) -> None:
    """Each manager claims what was offered to them, all at once."""
    await asyncio.gather(
        *(
            doors.call(
                "POST",
                "routing",
                f"/v1/leads/{lead}/claim",
                {"epoch": epoch},
                by=managers[manager],
            )
            for lead, manager, epoch in offered
        )
    )


def facts_of(observer: Observer, managers: dict[str, str], forged: int) -> LeadFacts:
    """Read the facts off the recorded history of every lead."""
    facts = LeadFacts(received=observer.names["lead.received"], forged_accepted=forged)
    facts.by_manager = dict.fromkeys(managers.values(), 0)
    for events in observer.leads.values():
        names = [name for name, _ in events]
        assigned = [data["epoch"] for name, data in events if name == "lead.assigned"]
        facts.assigned += bool(assigned)
        facts.reassigned += max(0, len(assigned) - 1)
        facts.unclaimed += names.count("lead.unclaimed")
        owners = [data["manager_id"] for name, data in events if name == "lead.claimed"]
        facts.claimed += bool(owners)
        facts.no_owner += not owners
        facts.two_owners += had_two_owners(events)
        for owner in owners:
            facts.by_manager[managers[owner]] += 1
    return facts


def had_two_owners(events: Sequence[tuple[str, dict[str, Any]]]) -> bool:
    """Whether at any moment two managers held the lead: an offer before the last one ended."""
    holder: str | None = None
    for name, data in events:
        if name == "lead.assigned":
            if holder is not None:
                return True
            holder = data["manager_id"]
        elif name in ("lead.unclaimed", "lead.released"):
            if data["manager_id"] != holder:
                return True
            holder = None
        elif name == "lead.claimed" and data["manager_id"] != holder:
            return True
    return False
