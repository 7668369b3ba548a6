"""Who lets processes die at failpoints: armed a few at a time, until each has crashed often enough.

A point is armed by a file that bears its name; the process that reaches it takes the file away,
writes a line into `crashes`, and dies (`libs/shared/failpoints.py`).
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from libs.shared import failpoints

ARMED_SECONDS = 5.0  # a point that is not reached in this time lets the next have its turn
BY_POISON = "dead_letter.laid_aside"
BY_MAIL = ("sending.taken", "sending.sent")  # in the order in which a message comes to them
BY_FORM = ("webhook.stored", "form.taken_in")
MAIL_SECONDS = 12.0  # the lease of a dead sender (`field.py`), and the start of the next
MAIL_WAITS = 2


class Arming:
    """Arms failpoints.

    Args:
        folder: Of the run; `armed/` is in it already.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._armed = folder / "armed"
        self._crashes = folder / "crashes"
        self._waits_for_mail = MAIL_WAITS
        self._chance = random.Random(f"{seed}/arming")

    async def in_turn(
        self,
        quota: int,
        *,
        points: Sequence[str] = failpoints.POINTS,
        pause: float,
        at_once: int = 1,
    ) -> None:
        """Arm the points in turn, until each has crashed so often; for ever.

        Few are armed at a time, and for five seconds at most: if they piled up, a process that
        comes back would die at its first request, again and again. What only poison reaches stays
        armed beside them, and what only mail or a form does until it has crashed once.

        Args:
            pause: Seconds between a crash and the next arming.
            at_once: So many are armed at a time.
        """
        turns: Counter[str] = Counter()
        async with asyncio.TaskGroup() as hands:
            for _ in range(at_once):
                hands.create_task(self._arm_in_turn(quota, points, pause, turns))

    async def _arm_in_turn(
        self, quota: int, points: Sequence[str], pause: float, turns: Counter[str]
    ) -> None:
        while True:
            crashes = self.crashes()
            if BY_POISON in points and crashes[BY_POISON] < quota:
                (self._armed / BY_POISON).touch()
            seldom = [
                c for c in (BY_MAIL, BY_FORM) if c[0] in points and not all(crashes[p] for p in c)
            ]
            for chain in seldom:
                # One after the other: a crash leaves what was to be sent leased a while.
                (self._armed / next(p for p in chain if not crashes[p])).touch()
            due = [
                p
                for p in points
                if p != BY_POISON
                and not any(p in chain for chain in seldom)
                and crashes[p] < quota
                and not (self._armed / p).exists()
            ]
            if due:
                point = min(due, key=lambda p: (crashes[p], turns[p], self._chance.random()))
                turns[point] += 1
                await self._crash_at(point)
            await asyncio.sleep(pause)

    async def _crash_at(self, point: str) -> None:
        file = self._armed / point
        file.touch()
        give_up_at = time.monotonic() + ARMED_SECONDS
        while file.exists() and time.monotonic() < give_up_at:
            await asyncio.sleep(0.1)
        file.unlink(missing_ok=True)

    async def until_crashed(self, points: Sequence[str], *, limit: float) -> None:
        """Wait until each of the points has crashed, at most so many seconds."""
        give_up_at = time.monotonic() + limit
        while time.monotonic() < give_up_at:
            crashes = self.crashes()
            if all(crashes[point] for point in points):
                return
            await asyncio.sleep(0.3)

    async def until_mail_goes_on(self) -> None:
        """Wait while a message that a dead sender had taken is leased; for the first ones only.

        If days passed meanwhile, the meeting would be over and the message not sent at all: where
        few messages are, the point after the sending would never be reached.
        """
        crashes = self.crashes()
        if crashes[BY_MAIL[0]] and not crashes[BY_MAIL[1]] and self._waits_for_mail:
            self._waits_for_mail -= 1
            await self.until_crashed(BY_MAIL, limit=MAIL_SECONDS)

    def crashes(self) -> Counter[str]:
        """How often each failpoint has killed."""
        lines = self._crashes.read_text().splitlines() if self._crashes.exists() else []
        return Counter({point: 0 for point in failpoints.POINTS}) + Counter(
            line.split()[0] for line in lines
        )

    def disarm(self) -> None:
        """From now on nobody dies at a failpoint."""
        for path in self._armed.iterdir():
            path.unlink(missing_ok=True)
