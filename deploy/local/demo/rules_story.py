"""Fourth story: an analyst changes the rules, having seen beforehand whom that would move."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.local.demo.doors import Doors, until
from deploy.local.demo.purchases_story import rule_set


@dataclass(slots=True)
class RuleFacts:
    """What the story found out.

    Attributes:
        mismatches: By how many clients the segments differ from what the preview told.
        moves: The largest of the previewed moves.
    """

    previewed: int = 0
    moved: int = 0
    mismatches: int = 0
    moves: Sequence[dict[str, Any]] = ()


async def play(doors: Doors, say: Any) -> RuleFacts:
    """Draft the shop's rules with quintiles, preview, activate as previewed, compare."""
    draft = rule_set() | {"title": "CDNOW: квинтили", "method": "quintile"}
    version = (await doors.call("POST", "scoring", "/v1/rule-sets", draft, by="analyst"))["version"]
    path = f"/v1/rule-sets/{version}"
    told = await doors.call("POST", "scoring", f"{path}/previews", by="analyst")
    moves = [m for m in told["matrix"] if m["old_segment"] != m["new_segment"]]
    say(f"quintiles instead of fixed bounds: {told['moving']:,} clients would move; activating")
    activate = f"{path}/activate?as_previewed={told['preview_id']}"
    await doors.call("POST", "scoring", activate, by="analyst")

    async def everybody_is_rated() -> bool:
        change = await doors.call("GET", "scoring", f"{path}/change", by="analyst")
        return bool(change["rated_at"])

    await until("everybody is rated under the new rules", everybody_is_rated)
    change = await doors.call("GET", "scoring", f"{path}/change", by="analyst")
    table = await doors.call("GET", "scoring", "/v1/segments", by="analyst")
    return RuleFacts(
        previewed=told["moving"],
        moved=change["moved"],
        mismatches=_differing(told["matrix"], table["segments"]),
        moves=moves[:5],
    )


def _differing(matrix: Sequence[dict[str, Any]], segments: Sequence[dict[str, Any]]) -> int:
    """Clients who are in another number than was told, by segment."""
    previewed: Counter[str] = Counter()
    for cell in matrix:
        previewed[cell["new_segment"]] += cell["clients"]
    there = Counter({line["segment"]: line["clients"] for line in segments})
    return sum(abs(previewed[name] - there[name]) for name in previewed.keys() | there.keys())
