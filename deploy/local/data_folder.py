"""A suite's data folder: one running suite at a time, and order after a suite that was killed."""

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from deploy.local.processes import POLL_SECONDS, Identity, LocalRunnerError, Roster

RUNNER = "runner"
# They go last: what the services have in hand goes through them.
_FOUNDATIONS = ("outside", "kafka", "postgres")
_OURS = ("kafka", "logs", "outside", "postgres", "ports.json", "secrets.json")
_STOP_SECONDS = 120.0
_LEFTOVER_SECONDS = 30.0


class DataFolder:
    """The files of a suite; `locked` is the way to one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self.roster = Roster(path / "processes.json")

    @classmethod
    @contextmanager
    def locked(cls, path: Path) -> Iterator["DataFolder"]:
        """Own the folder for the time of the block; the kernel frees it if the owner is killed.

        Raises:
            LocalRunnerError: Another suite runs in it.
        """
        path = path.absolute()
        path.mkdir(parents=True, exist_ok=True)
        with (path / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LocalRunnerError(
                    f"A suite already runs in {path}: `make stop` stops it"
                ) from None
            yield cls(path)

    def take_over(self, say: Callable[[str], None]) -> bool:
        """End what a killed suite left running, and begin new logs.

        Returns:
            Whether the last suite here was killed.
        """
        left = self.roster.read()
        end_leftovers(left, say)
        self.roster.clear()
        self.roster.record(RUNNER, os.getpid())
        for log in self.logs.glob("*.log"):
            if not log.stem.endswith(".previous"):
                log.replace(log.with_suffix(".previous.log"))
        return bool(left)

    def empty(self) -> None:
        """Remove what a suite keeps; other files in the folder stay."""
        for name in _OURS:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def stop_suite(path: Path, say: Callable[[str], None]) -> bool:
    """Stop the suite of a data folder, wherever it was started, and what a killed one left.

    Returns:
        Whether there was anything to stop.
    """
    identities = Roster(path / "processes.json").read()
    runner = next((one for one in identities if one.name == RUNNER), None)
    process = runner.process() if runner else None
    if runner is not None and process is not None:
        say(f"Stopping the suite in {path} (pid {runner.pid}) ...")
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
        if not _gone_within(runner, _STOP_SECONDS):
            say(f"It has not stopped within {_STOP_SECONDS:.0f} s and is killed.")
            with suppress(psutil.NoSuchProcess):
                process.kill()
    leftovers = end_leftovers([one for one in identities if one.name != RUNNER], say)
    return process is not None or leftovers


def end_leftovers(identities: Sequence[Identity], say: Callable[[str], None]) -> bool:
    """End those of the processes that still run and are surely the same: services, then the rest.

    Returns:
        Whether there were any.
    """
    mine = os.getpid()
    alive = [one for one in identities if one.pid != mine and one.process() is not None]
    if alive:
        say(f"Ending what an earlier suite left: {', '.join(one.name for one in alive)}.")
    _end([one for one in alive if not one.name.startswith(_FOUNDATIONS)])
    for foundation in _FOUNDATIONS:
        _end([one for one in alive if one.name.startswith(foundation)])
    return bool(alive)


def _end(identities: Sequence[Identity]) -> None:
    for identity in identities:
        process = identity.process()
        if process is not None:
            # PostgreSQL takes SIGTERM for "wait until every client has gone".
            fast = identity.name == "postgres"
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT if fast else signal.SIGTERM)
    for identity in identities:
        if not _gone_within(identity, _LEFTOVER_SECONDS):
            process = identity.process()
            if process is not None:
                process.kill()
                _gone_within(identity, _LEFTOVER_SECONDS)


def _gone_within(identity: Identity, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while identity.process() is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
