"""Keeping processes alive: one that died is started again, less and less eagerly."""

import asyncio
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from deploy.local.processes import LocalRunnerError, Roster, end, kill, spawn, tail

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
STEADY_SECONDS = 30.0  # who has lived this long is forgiven earlier deaths
_LOOK_SECONDS = 0.1


class Part(Protocol):
    """Anything that runs as a process and may be started again."""

    @property
    def pid(self) -> int: ...

    @property
    def log(self) -> Path: ...

    def start(self) -> None: ...

    def is_running(self) -> bool: ...


class PythonProcess:
    """A module of this checkout in a process of its own.

    Attributes:
        arguments: What it is started with; a change holds from the next start on.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], *, env: Mapping[str, str], log: Path, cwd: Path
    ) -> None:
        self.name = name
        self.log = log
        self.arguments = list(arguments)
        self._env = env
        self._cwd = cwd
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._started().pid

    def start(self) -> None:
        self._child = spawn(self.arguments, log=self.log, env=self._env, cwd=self._cwd)

    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def begin_stop(self) -> None:
        if self.is_running():
            self._started().terminate()

    def stop(self, limit: float) -> bool:
        """Wait for the end of a process asked to stop; kill it after `limit` seconds."""
        return self._child is None or end(self._child, limit=limit)

    def kill(self) -> None:
        """Kill -9, as a crash would. A supervisor starts it again."""
        kill(self._started())

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise LocalRunnerError(f"{self.name} was not started")
        return self._child


@dataclass
class _Watched:
    part: Part
    started_at: float  # monotonic seconds
    pause: float = FIRST_PAUSE_SECONDS
    restart_at: float | None = None  # monotonic seconds; None while it runs


@dataclass
class Supervisor:
    """Watches parts and restarts the dead.

    Attributes:
        say: Told about every death and every restart, one line each.
        longest_pause: Seconds before a restart, at most; who dies again and again waits longer.
    """

    roster: Roster
    say: Callable[[str], None]
    longest_pause: float = LONGEST_PAUSE_SECONDS
    _watched: dict[str, _Watched] = field(default_factory=dict)

    def watch(self, name: str, part: Part) -> None:
        """Record a part that was just started, and keep it alive while `run` runs."""
        self.roster.record(name, part.pid)
        self._watched[name] = _Watched(part, time.monotonic())

    def let_go(self, name: str) -> None:
        """Watch a part no longer; it goes on running."""
        self._watched.pop(name, None)

    def require_alive(self) -> None:
        """Check that nothing has died yet: at the start a death is a fault, not an accident.

        Raises:
            LocalRunnerError: Tells the end of the dead one's log.
        """
        for name, watched in self._watched.items():
            if not watched.part.is_running():
                raise LocalRunnerError(f"{name} ended at once.\n{tail(watched.part.log)}")

    async def run(self) -> None:
        """Restart what dies, until cancelled."""
        while True:
            for name, watched in list(self._watched.items()):
                self._look_after(name, watched, time.monotonic())
            await asyncio.sleep(_LOOK_SECONDS)

    def _look_after(self, name: str, watched: _Watched, now: float) -> None:
        if watched.restart_at is None:
            if watched.part.is_running():
                return
            if now - watched.started_at > STEADY_SECONDS:
                watched.pause = FIRST_PAUSE_SECONDS
            watched.restart_at = now + watched.pause
            self.say(f"{name} died; again in {watched.pause:g} s. Its log: {watched.part.log}")
        if now < watched.restart_at:
            return
        try:
            watched.part.start()
            self.roster.record(name, watched.part.pid)
        except (LocalRunnerError, OSError) as problem:
            self.say(f"{name} cannot be started: {problem}")
        else:
            self.say(f"{name} runs again")
        watched.started_at, watched.restart_at = now, None
        watched.pause = min(watched.pause * 2, self.longest_pause)
