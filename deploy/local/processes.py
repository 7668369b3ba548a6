"""Child processes of the local runner: started apart, ended politely, never mistaken for others.

Every child is the leader of its own session, so a Ctrl-C in the terminal reaches only the runner,
which then stops its children in the right order. On Linux the kernel also signals them when the
runner dies without having said goodbye.
"""

import contextlib
import ctypes
import errno
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

POLL_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1


class LocalRunnerError(Exception):
    """Something the developer can understand and act upon; shown without a traceback."""


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: int | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, its output appended to `log`.

    Args:
        user: Numeric user to run as, in that user's own group; only root may ask for one.
        death_signal: What the kernel sends the child when the calling *thread* ends (Linux), so
            call from the main thread or from a pool that lives as long as the runner.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            user=user,
            group=pwd.getpwuid(user).pw_gid if user is not None else None,
            extra_groups=[] if user is not None else None,
            start_new_session=True,
            preexec_fn=_die_with_parent(death_signal),
        )


def _die_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)  # before the fork: loading a library after it may hang
    parent = os.getpid()

    def ask_the_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # the runner died between the fork and the line above
            os._exit(1)

    return ask_the_kernel


def end(
    child: subprocess.Popen[bytes], *, first: signal.Signals = signal.SIGTERM, limit: float = 30.0
) -> bool:
    """Ask a child to stop, and kill it when it has not after `limit` seconds.

    Returns:
        Whether it stopped by itself.
    """
    if child.poll() is not None:
        return True
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(first)
    try:
        child.wait(limit)
    except subprocess.TimeoutExpired:
        kill(child)
        return False
    return True


def kill(child: subprocess.Popen[bytes]) -> None:
    """Kill -9 a child and all its descendants, and wait until they are gone."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    child.wait()
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + 10
    while any(_is_alive(process) for process in family) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _is_alive(process: psutil.Process) -> bool:
    try:  # a zombie only waits for init to read its exit code, which may take init a second
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def await_condition(
    condition: Callable[[], bool],
    *,
    alive: Callable[[], bool],
    what: str,
    log: Path,
    limit: float,
) -> None:
    """Poll until `condition` holds.

    Raises:
        LocalRunnerError: The process ended or `limit` seconds passed before; tells the log's tail.
    """
    deadline = time.monotonic() + limit
    while not condition():
        if not alive():
            raise LocalRunnerError(f"{what} ended at once.\n{tail(log)}")
        if time.monotonic() > deadline:
            raise LocalRunnerError(f"{what} is not ready after {limit:.0f} s.\n{tail(log)}")
        time.sleep(POLL_SECONDS)


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log with its name, ready to be shown."""
    if not log.exists():
        return f"{log} does not exist."
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 20_000))
        text = stream.read().decode(errors="replace")
    return f"The end of {log}:\n" + "\n".join(text.splitlines()[-lines:])


def port_is_free(port: int) -> bool:
    """Whether something could listen on 127.0.0.1:`port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is not "taken"
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as problem:
            if problem.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def free_ports(count: int) -> list[int]:
    """Different ports nobody listens on at the moment."""
    with contextlib.ExitStack() as probes:
        ports = []
        for _ in range(count):
            probe = probes.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
    return ports


def write_atomically(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file in one step: a reader or a crash sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(name, mode)
    os.replace(name, path)


@dataclass(frozen=True)
class Identity:
    """A process as it was seen: a pid alone may belong to somebody else tomorrow."""

    name: str
    pid: int
    started: float  # seconds since 1970, as the kernel counts them
    arguments: list[str]  # without the program's own name, which macOS may rewrite

    @classmethod
    def of(cls, name: str, pid: int) -> "Identity":
        process = psutil.Process(pid)
        return cls(name, pid, process.create_time(), process.cmdline()[1:])

    def process(self) -> psutil.Process | None:
        """The process if it still runs and is surely the same one."""
        try:
            process = psutil.Process(self.pid)
            same = (
                abs(process.create_time() - self.started) < 2.0
                and process.cmdline()[1:] == self.arguments
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.Error:
            return None
        return process if same else None


class Roster:
    """The file with the identities of a runner and its children, for those who come after it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Identity] = {}

    def record(self, name: str, pid: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):  # it died at once: nothing to remember
            self._entries[name] = Identity.of(name, pid)
            self._write()

    def clear(self) -> None:
        self._entries = {}
        self._path.unlink(missing_ok=True)

    def read(self) -> list[Identity]:
        """Identities in the order in which they were first recorded; a torn file counts as none."""
        try:
            return [Identity(**entry) for entry in json.loads(self._path.read_text())]
        except (FileNotFoundError, ValueError, TypeError):
            return []

    def _write(self) -> None:
        entries = [asdict(entry) for entry in self._entries.values()]
        write_atomically(self._path, json.dumps(entries, indent=1))
