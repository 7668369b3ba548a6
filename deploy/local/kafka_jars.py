"""Apache Kafka's jars: fetched once per user by `maven-artifact`, checked against committed sums.

They lie in the user's cache folder, shared by all clones. A jar is written beside its place and
moved there when its sum is right, so two clones may fetch at once and a broken file never stays.
"""

import contextlib
import hashlib
import io
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maven_artifact import Artifact, Downloader, RequestException, Requestor

from deploy.local.processes import LocalRunnerError

KAFKA_VERSION = "4.3.1"
LIST = Path(__file__).with_name("kafka-jars.txt")

_LINE = re.compile(
    r"(?P<group>[\w.-]+):(?P<name>[\w.-]+):(?P<version>[\w.-]+) (?P<sha256>[0-9a-f]{64})"
)
_PARALLEL = 8
_ATTEMPTS = 4
_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Jar:
    group: str
    name: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}.jar"


class _ChecksumMismatch(Exception):
    pass


def read_list(path: Path = LIST) -> list[Jar]:
    """The jars of a list: a line each, `group:artifact:version sha256`; `#` begins a comment.

    Raises:
        LocalRunnerError: A line of another shape.
    """
    jars = []
    for line in path.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        matched = _LINE.fullmatch(line)
        if matched is None:
            raise LocalRunnerError(f"{path}: not a jar with its sum: {line!r}")
        jars.append(Jar(**matched.groupdict()))
    return jars


def cache_folder() -> Path:
    """Where this user's jars of this Kafka are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "baza" / f"kafka-{KAFKA_VERSION}"


def fetch(
    jars: list[Jar] | None = None,
    *,
    folder: Path | None = None,
    download: Callable[[Jar, Path], None] | None = None,
    pause: float = 0.25,
) -> list[Path]:
    """Make sure that every jar is there and is the one we know.

    Args:
        download: Puts a jar at a path; from the package's default repository unless given.
        pause: Seconds before the second attempt, doubled before each further one.

    Returns:
        The jars' paths, in the order of the list.

    Raises:
        LocalRunnerError: A jar cannot be fetched, or is another than its sum says.
    """
    jars = read_list() if jars is None else jars
    folder = folder or cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    download = download or _download
    # The package prints a line per jar; the pool ends before the redirection does.
    with contextlib.redirect_stdout(io.StringIO()), ThreadPoolExecutor(_PARALLEL) as pool:
        return list(pool.map(lambda jar: _ensure(jar, folder, download, pause), jars))


def _ensure(jar: Jar, folder: Path, download: Callable[[Jar, Path], None], pause: float) -> Path:
    path = folder / jar.file_name
    if path.exists() and _sha256(path) == jar.sha256:
        return path
    unfinished = folder / f".{jar.file_name}.{os.getpid()}"
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            download(jar, unfinished)
            if _sha256(unfinished) != jar.sha256:
                raise _ChecksumMismatch("what came is not what kafka-jars.txt names")
            os.replace(unfinished, path)
        except (RequestException, OSError, _ChecksumMismatch) as problem:
            unfinished.unlink(missing_ok=True)
            if attempt == _ATTEMPTS:
                reason = getattr(problem, "msg", str(problem))
                raise LocalRunnerError(f"Cannot fetch {jar.file_name}: {reason}") from problem
            time.sleep(pause * 2 ** (attempt - 1))
        else:
            break
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _PatientRequestor(Requestor):  # type: ignore[misc]  # the package is untyped
    """Gives up on a connection that went silent; the package's own would wait for ever."""

    def request(self, *args: Any, **kwargs: Any) -> Any:
        return super().request(*args, timeout=_TIMEOUT_SECONDS, **kwargs)


def _download(jar: Jar, path: Path) -> None:
    base = os.environ.get("BAZA_MAVEN_REPOSITORY")
    downloader = Downloader(base=base) if base else Downloader()
    downloader.requestor = downloader.resolver.requestor = _PatientRequestor()
    downloader.download(Artifact(jar.group, jar.name, jar.version), str(path))
